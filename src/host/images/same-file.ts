// Tells whether two names are one file: by what they lead to, not by how they are spelled. Symbolic links, `..`, hard
// links and several device nodes of one disk all lead to the same bytes.
import type { BigIntStats } from 'node:fs';
import { readlink, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { isErrno } from '../../errors.js';

/** Equal for names of one file; undefined if there is none. Throws what stat(2) does otherwise. */
export async function identityOf(file: string): Promise<string | undefined> {
  try {
    return identityIn(await stat(file, { bigint: true }));
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** The identity in what stat(2) gave: device and inode, or the number of a block device. */
export function identityIn(stats: BigIntStats): string {
  return stats.isBlockDevice() ? `block ${stats.rdev}` : `${stats.dev}:${stats.ino}`;
}

/** `identityOf`, or the resolved path of a file that is not there or must not be looked at. Never throws. */
export async function fileKey(file: string): Promise<string> {
  return (await identityOf(file).catch(() => undefined)) ?? (await resolvedPath(file));
}

export async function sameFile(one: string, other: string): Promise<boolean> {
  return one === other || (await fileKey(one)) === (await fileKey(other));
}

/** No symbolic link is left in it, also if there is nothing at its end (a socket whose maker ended). */
export async function resolvedPath(path: string, depth = 0): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    // A link to what is not there is followed as often as the kernel would.
    const target = depth < 40 ? await readlink(path).catch(() => undefined) : undefined;
    const folder = await realpath(dirname(path)).catch(() => resolve(dirname(path)));
    return target === undefined ? join(folder, basename(path)) : await resolvedPath(resolve(folder, target), depth + 1);
  }
}
