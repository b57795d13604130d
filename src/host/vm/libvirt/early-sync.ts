// Brings what is copied to the disk while it is copied. When its job ends libvirt has QEMU close the targets, which flushes
// them: QEMU, and the guest with it, stands still for as long as that takes, and nobody can sync them in between.

const EVERY_MS = 5000;

export class EarlySync {
  readonly #sync: () => Promise<void>;
  #under: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  #atMs = performance.now();

  constructor(sync: () => Promise<void>) {
    this.#sync = sync;
  }

  /** Begins to sync, if none is under way and the last was long enough ago. Throws what an earlier one threw. */
  tick(): void {
    this.#throwFailure();
    if (this.#under !== undefined || performance.now() - this.#atMs < EVERY_MS) return;
    this.#under = this.#once();
  }

  /** Returns when none is under way. Throws what one threw: the kernel tells of a lost write but once. */
  async end(): Promise<void> {
    await this.#under;
    this.#throwFailure();
  }

  async #once(): Promise<void> {
    try {
      await this.#sync();
    } catch (error) {
      this.#failure = { error };
    }
    this.#atMs = performance.now();
    this.#under = undefined;
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
