// Undoes what was done, last first, unless it is kept. An undo that fails does not keep the others from running; all
// failures come back in one AggregateError.
import { withLimit } from './deadline.js';

type Undo = () => Promise<void> | void;

export class Reverter implements AsyncDisposable {
  #undos: { what: string; undo: Undo; limitMs: number | undefined }[] = [];

  /**
   * Registers an undo, which `what` names in errors. To be called before the act, or in the line after it. One with a limit
   * counts as failed when that has passed, though its work may go on.
   */
  push(what: string, undo: Undo, limitMs?: number): void {
    this.#undos.push({ what, undo, limitMs });
  }

  /** Forgets all undos: what was done stays. */
  keep(): void {
    this.#undos = [];
  }

  /**
   * Runs the undos, last pushed first, each once. Throws an AggregateError that names those that failed, after all
   * have run.
   */
  async revert(): Promise<void> {
    const undos = this.#undos.reverse();
    this.#undos = [];
    const failures: Error[] = [];
    for (const { what, undo, limitMs } of undos) {
      try {
        await (limitMs === undefined ? undo() : withLimit(what, limitMs, Promise.resolve(undo())));
      } catch (cause) {
        failures.push(new Error(`could not undo: ${what}`, { cause }));
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, failures.map((failure) => failure.message).join('; '));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.revert();
  }
}
