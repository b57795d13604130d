// A device-mapper section of the requester's provider, in which nothing may be thawed (../README.md, rule 5). Whoever
// ends the session waits here for the section's end, and no longer than the bound that the requester named. A requester
// that died tells of no end: whether it is over is looked up then. The freezer keeps the same bound by itself, also when
// this process is gone.

/** How often it is looked up whether a section is over that nobody ends. */
const LOOK_MS = 20;

export class CriticalSection {
  #over: Promise<void> | undefined;
  #leave: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #isOver: (() => boolean) | undefined;
  #isClosed = false;

  /** An end of the session waits: no other section may begin. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** A section begins, or goes on, for `boundMs` from now at most. `isOver`: looked up by whoever waits for its end. */
  begin(boundMs: number, isOver?: () => boolean): void {
    clearTimeout(this.#timer);
    this.#isOver = isOver;
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
    this.#look();
    return this.#over;
  }

  #look(): void {
    if (this.#over === undefined || this.#isOver === undefined) return;
    if (this.#isOver()) this.end();
    else
      setTimeout(() => {
        this.#look();
      }, LOOK_MS);
  }
}
