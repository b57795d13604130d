// Watches the space of a repository while it is written to, and never waits for the answer: a filesystem whose server is
// gone gives none, and who waits for it can neither give the backup up nor be interrupted.
import { statfs } from 'node:fs/promises';
import { CutError } from '../../errors.js';

/** What an ordinary user may still write to the filesystem of `path`, in bytes. Throws what statfs(2) does. */
export async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path);
  return bavail * bsize;
}

export class SpaceWatch {
  readonly #path: string;
  readonly #leastBytes: number;
  readonly #ask: typeof freeBytes;
  #isAsking = false;
  #failure: Error | undefined;

  constructor(path: string, leastBytes: number, ask = freeBytes) {
    this.#path = path;
    this.#leastBytes = leastBytes;
    this.#ask = ask;
  }

  /** Asks, unless an answer is awaited still. Throws what the last answer was, if there is too little or it failed. */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isAsking) return;
    this.#isAsking = true;
    void this.#measure().finally(() => {
      this.#isAsking = false;
    });
  }

  async #measure(): Promise<void> {
    const path = this.#path;
    try {
      const free = await this.#ask(path);
      if (free >= this.#leastBytes) return;
      const message = `the repository in ${path} runs full: ${free} bytes are free; the backup was given up`;
      this.#failure = new CutError('E_NO_SPACE', message);
    } catch (cause) {
      this.#failure = new CutError('E_BACKUP', `nobody knows how much space is left in ${path}`, { cause });
    }
  }
}
