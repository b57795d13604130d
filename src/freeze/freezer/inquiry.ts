// Asks the freezer questions that need no session. However many ask at a time, one connection serves them all: the
// freezer keeps eight, and one of them is the session's.
import { connectToSocket, noEvents, type FreezerConnection } from './client.js';

export class FreezerInquiry {
  readonly #socketPath: string;
  #connection: Promise<FreezerConnection> | undefined;
  #asking = 0;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Throws an UnreachableError if no freezer answers, and what `question` throws. */
  async ask<T>(question: (freezer: FreezerConnection) => Promise<T>): Promise<T> {
    this.#asking++;
    const connecting = (this.#connection ??= connectToSocket(this.#socketPath, noEvents));
    try {
      return await question(await connecting);
    } catch (error) {
      // A freezer that is silent or gone is not asked again on this connection.
      this.#drop(connecting);
      throw error;
    } finally {
      if (--this.#asking === 0) this.#drop(this.#connection);
    }
  }

  #drop(connection: Promise<FreezerConnection> | undefined): void {
    if (this.#connection === connection) this.#connection = undefined;
    connection?.then(
      (freezer) => {
        freezer.close();
      },
      () => undefined,
    );
  }
}
