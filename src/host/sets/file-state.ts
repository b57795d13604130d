// What a file is, however its name is spelled, and how it is now: so that later it can be seen whether it is the same one,
// and whether anybody wrote to it.
import { stat } from 'node:fs/promises';
import type { FileState } from './manifest.js';

/** Undefined for what cannot be looked at from here. Never throws. */
export async function fileStateOf(file: string): Promise<FileState | undefined> {
  try {
    const found = await stat(file, { bigint: true });
    return {
      device: String(found.dev),
      inode: String(found.ino),
      size: found.isBlockDevice() ? 0 : Number(found.size),
      // As precise as a number allows; compared, never counted with.
      mtimeMs: Number(found.mtimeNs / 1000n) / 1000,
    };
  } catch {
    return undefined;
  }
}
