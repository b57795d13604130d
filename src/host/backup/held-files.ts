// Holds the files of a backup open from before QEMU writes to them. The kernel tells of a write to the disk that failed later
// (a full or lost file server, a bad sector) to whoever had the file open then, and to nobody who opens it afterwards.
import type { FileHandle } from 'node:fs/promises';
import { unlessAborted } from '../../deadline.js';
import { interruption } from '../../confirm.js';
import { CutError, QuiesceError } from '../../errors.js';

export class HeldFiles {
  readonly #files: { readonly file: string; readonly handle: FileHandle }[] = [];

  hold(file: string, handle: FileHandle): void {
    this.#files.push({ file, handle });
  }

  /** Returns when all that was written to them is on the disk. Throws a CutError `E_BACKUP` if any of it is lost. */
  async sync(signal: AbortSignal): Promise<void> {
    for (const { file, handle } of this.#files) {
      signal.throwIfAborted();
      await unlessAborted(syncOne(file, handle), signal, () => {
        return new QuiesceError('E_INTERRUPTED', interruption(signal, 'nothing was backed up'));
      });
    }
  }

  /** They are not held any more; again does nothing. */
  async close(): Promise<void> {
    for (const { handle } of this.#files.splice(0)) await handle.close();
  }
}

async function syncOne(file: string, handle: FileHandle): Promise<void> {
  try {
    await handle.sync();
  } catch (cause) {
    throw new CutError('E_BACKUP', `not all that was written to ${file} is on the disk`, { cause });
  }
}
