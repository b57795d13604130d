// Whether two names are one file: by what they lead to, not by how they are spelled. Symbolic links, `..`, hard links and
// several device nodes of one disk all lead to the same bytes.
import { readlink, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

/**
 * Equal for two names of one file: device and inode, of a block device its number. Of a file that is not there, or that
 * we may not look at, the resolved path.
 */
export async function fileKey(file: string): Promise<string> {
  try {
    const found = await stat(file, { bigint: true });
    return found.isBlockDevice() ? `block ${found.rdev}` : `${found.dev}:${found.ino}`;
  } catch {
    return await resolvedPath(file);
  }
}

export async function sameFile(one: string, other: string): Promise<boolean> {
  return one === other || (await fileKey(one)) === (await fileKey(other));
}

/** No symbolic link is left in it, also if there is nothing at its end (a socket whose maker ended). */
export async function resolvedPath(path: string, depth = 0): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    // A link to what is not there: the kernel follows as many.
    const target = depth < 40 ? await readlink(path).catch(() => undefined) : undefined;
    const folder = await realpath(dirname(path)).catch(() => resolve(dirname(path)));
    return target === undefined ? join(folder, basename(path)) : await resolvedPath(resolve(folder, target), depth + 1);
  }
}
