// Which file a name means. Files are compared by what they are (device and inode; for a block device the device itself),
// not by their spelling: a symbolic link, a hard link and a relative path lead to the same bytes.
import type { BigIntStats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { isErrno } from '../errno.js';

/** Equal for names of one file; undefined if there is none. Throws what stat(2) does otherwise. */
export async function identityOf(file: string): Promise<string | undefined> {
  try {
    return identityIn(await stat(file, { bigint: true }));
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** The same, of a file that was looked at already. */
export function identityIn(stats: BigIntStats): string {
  return stats.isBlockDevice() ? `device ${stats.rdev}` : `${stats.dev}:${stats.ino}`;
}

/** True if both names lead to one file, or would if it was there. */
export async function isSameFile(one: string, other: string): Promise<boolean> {
  if (resolve(one) === resolve(other)) return true;
  const identity = await identityOf(one);
  return identity !== undefined && identity === (await identityOf(other));
}

/** What a file is, however its name is spelled, and how it is at a moment: as a manifest's `asCut` keeps it. */
export interface FileState {
  readonly device: string;
  readonly inode: string;
  /** Bytes; 0 for a block device. */
  readonly size: number;
  readonly mtimeMs: number;
}

/** Throws what stat(2) does. */
export async function fileStateOf(file: string): Promise<FileState> {
  const { dev, ino, size, mtimeNs } = await stat(file, { bigint: true });
  return { device: String(dev), inode: String(ino), size: Number(size), mtimeMs: Number(mtimeNs) / 1e6 };
}

/** Undefined if it is not there. Throws what stat(2) does otherwise. */
export async function fileStateIfThere(file: string): Promise<FileState | undefined> {
  try {
    return await fileStateOf(file);
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** The same file, not written to in between. The device is not compared: its number may be another after a boot. */
export function isSameState(a: FileState, b: FileState): boolean {
  return a.inode === b.inode && a.size === b.size && a.mtimeMs === b.mtimeMs;
}
