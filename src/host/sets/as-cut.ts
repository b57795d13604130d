// What a file is and how it is, so that it can be told later whether it is still the same and was not written to.
import { stat } from 'node:fs/promises';
import { isErrno } from '../errno.js';
import type { FileState } from './manifest.js';

/** Undefined if it is not there. */
export async function fileState(file: string): Promise<FileState | undefined> {
  try {
    const { dev, ino, size, mtimeNs } = await stat(file, { bigint: true });
    // Of the nanoseconds those that a number holds; the same file gives the same number.
    return { device: String(dev), inode: String(ino), size: Number(size), mtimeMs: Number(mtimeNs) / 1e6 };
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/**
 * The same file, not written to in between. The device is not compared: its number may be another after a boot. Times
 * to the millisecond: whoever wrote `asCut` may have rounded.
 */
export function isSameState(a: FileState, b: FileState): boolean {
  return a.inode === b.inode && a.size === b.size && Math.abs(a.mtimeMs - b.mtimeMs) < 1;
}
