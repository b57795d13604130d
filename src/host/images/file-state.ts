// Records how a file is, so that it can be told later whether it is still the same one and was not written to.
import { stat } from 'node:fs/promises';
import { isErrno } from '../../errors.js';
import { deviceWrites, type DeviceWrites } from './device-writes.js';

/** Tells what a file is, however its name is spelled, and how it is at a moment: as a manifest's `asCut` keeps it. */
export interface FileState {
  readonly device: string;
  readonly inode: string;
  /** Bytes; 0 for a block device. */
  readonly size: number;
  readonly mtimeMs: number;
  /** The writes to a block device, whose times do not tell. Absent for a file, and if writes are not counted. */
  readonly writes?: DeviceWrites | undefined;
}

/** Throws what stat(2) does. */
export async function fileStateOf(file: string): Promise<FileState> {
  const found = await stat(file, { bigint: true });
  const { dev, ino, size, mtimeNs, rdev } = found;
  const state = { device: String(dev), inode: String(ino), size: Number(size), mtimeMs: Number(mtimeNs) / 1e6 };
  const writes = found.isBlockDevice() ? await deviceWrites(file, rdev) : undefined;
  return writes === undefined ? state : { ...state, writes };
}

/** The state, or undefined if the file is not there. Throws what stat(2) does otherwise. */
export async function fileStateIfThere(file: string): Promise<FileState | undefined> {
  try {
    return await fileStateOf(file);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** True for one file that was not written to in between. The device is not compared: a boot may change its number. */
export function isSameState(a: FileState, b: FileState): boolean {
  return a.inode === b.inode && a.size === b.size && a.mtimeMs === b.mtimeMs;
}
