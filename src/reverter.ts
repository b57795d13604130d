// Undoes what was done, last first, unless it is kept. An undo that fails does not keep the others from running; all
// failures come back in one AggregateError.

type Undo = () => Promise<void> | void;

export class Reverter implements AsyncDisposable {
  #undos: { what: string; undo: Undo }[] = [];

  /** Registers an undo, which `what` names in errors. To be called before the act, or in the line after it. */
  push(what: string, undo: Undo): void {
    this.#undos.push({ what, undo });
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
    for (const { what, undo } of undos) {
      try {
        await undo();
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
