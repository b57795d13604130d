// The guest that random runs share: restored anew only where it must be (it died, or a run did not hold).
import { Lab } from '../vm/faults/lab.js';

export class GuestKeeper implements AsyncDisposable {
  #lab: Lab | undefined;
  #isSpent = false;

  /** The guest for the next run, with an empty timeline. */
  async lab(): Promise<Lab> {
    if (this.#lab === undefined) this.#lab = await Lab.restore();
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
