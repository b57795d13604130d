// A guest that cells and random runs share: made anew only where it must be (it died, a run did not hold, or a fault left
// it as it was not before). Nothing is cheaper than a guest that is up.
import type { GuestKind } from '../../../src/testing/index.js';
import { lastLines } from '../../../src/testing/guest-folder.js';
import { Lab } from './lab.js';

export class GuestKeeper implements AsyncDisposable {
  readonly kind: GuestKind;
  #lab: Lab | undefined;
  #isSpent = false;

  constructor(kind: GuestKind) {
    this.kind = kind;
  }

  /** The guest for the next run, with an empty timeline. */
  async lab(): Promise<Lab> {
    if (this.#lab === undefined) this.#lab = await Lab.restore(this.kind);
    else await this.#lab.begin();
    return this.#lab;
  }

  /** After this run it is not used again. */
  spend(): void {
    this.#isSpent = true;
  }

  /** It is sound after all. */
  keep(): void {
    this.#isSpent = false;
  }

  /** Of a guest that has ended, though no fault was to end it: that it has, and what its console said last. */
  async lastWords(): Promise<readonly string[]> {
    const guest = this.#lab?.guest;
    return guest?.isOver === true ? [`the guest has ended; its console: ${await lastLines(guest.consolePath)}`] : [];
  }

  /** At the end of a run: away with a guest that is spent. */
  async settle(): Promise<void> {
    if (this.#isSpent) await this[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const lab = this.#lab;
    this.#lab = undefined;
    this.#isSpent = false;
    await lab?.[Symbol.asyncDispose]();
  }
}
