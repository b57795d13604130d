// A device-mapper section of the requester's provider, in which nothing may be thawed (../README.md, rule 5). Whoever
// ends the session waits here for the section's end, and no longer than the bound that the requester named. The freezer
// keeps the same bound by itself, also when this process is gone.

export class CriticalSection {
  #over: Promise<void> | undefined;
  #leave: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** An end of the session waits: no other section may begin. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** A section begins, or goes on, for `boundMs` from now at most. */
  begin(boundMs: number): void {
    clearTimeout(this.#timer);
    this.#over ??= new Promise((resolve) => {
      this.#leave = resolve;
    });
    this.#timer = setTimeout(() => {
      this.end();
    }, boundMs);
  }

  /** May be called at any time. */
  end(): void {
    clearTimeout(this.#timer);
    this.#over = undefined;
    this.#leave();
  }

  /**
   * Lets no other section begin. Settles, never rejects, when the one under way is over; undefined if there is none, so
   * that what needs no wait is done at once.
   */
  close(): Promise<void> | undefined {
    this.#isClosed = true;
    return this.#over;
  }
}
