// Waits for the word that `fault-lab strike --tell` writes to the guest's console: the quickest way from the guest to the
// host that needs nobody's answer.
import { watch, type FSWatcher } from 'node:fs';
import { open, stat } from 'node:fs/promises';

const WORD = '@strike';

export class ConsoleWatch implements AsyncDisposable {
  /** Resolves when the word has come. */
  readonly struck: Promise<void>;
  readonly #watcher: FSWatcher;

  constructor(file: string) {
    let from: number | undefined;
    let seen = '';
    this.#watcher = watch(file);
    this.struck = new Promise((resolve) => {
      const look = async (): Promise<void> => {
        from ??= (await stat(file)).size;
        await using handle = await open(file);
        const { bytesRead, buffer } = await handle.read(Buffer.alloc(4096), 0, 4096, from);
        from += bytesRead;
        seen += buffer.toString('latin1', 0, bytesRead);
        if (seen.includes(WORD)) resolve();
      };
      let turn = look();
      this.#watcher.on('change', () => {
        turn = turn.then(look, look);
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watcher.close();
    await Promise.resolve();
  }
}
