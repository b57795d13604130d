// Writes and removes files so that a power cut leaves the old state or the new one: a file is written beside its place,
// synced and renamed, and its folder is synced.
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CutError, isErrno } from '../../errors.js';

/**
 * Replaces `file` by `content`: after a crash at any moment it holds the old one or the new one, whole. Throws a CutError
 * (`E_WRITE`) if it cannot: a full or read-only filesystem, a folder that is not there.
 */
export async function writeDurably(file: string, content: string | Buffer): Promise<void> {
  const draft = `${file}.${process.pid}.tmp`;
  try {
    // A link that somebody put there, where others may write too, would lead to any file.
    await rm(draft, { force: true });
    const handle = await open(draft, 'wx', 0o640);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, file);
  } catch (cause) {
    await rm(draft, { force: true }).catch(() => undefined);
    throw new CutError('E_WRITE', `cannot write ${file}`, { cause });
  }
  await syncPath(dirname(file));
}

/**
 * Writes `file` where none is yet: of several that want the place, on any host that shares the filesystem, one gets it, and
 * nobody ever sees it half written. By link(2), since rename(2) puts what comes later over what was there. False if there
 * is one already, which stays as it is. Throws what writeDurably and link(2) do.
 */
export async function writeIfAbsent(file: string, content: string, linkTo = link): Promise<boolean> {
  const draft = `${file}.${process.pid}.${randomBytes(4).toString('hex')}.new`;
  await writeDurably(draft, content);
  try {
    await linkTo(draft, file);
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return false;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
  await syncPath(dirname(file));
  return true;
}

/** Makes the folder unless it is there; what it lies in is. Throws what mkdir(2) does: Node's recursive one hides EROFS. */
export async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { mode: 0o750 }).catch((error: unknown) => {
    if (!isErrno(error, 'EEXIST')) throw error;
  });
}

/** fsync of a file or folder. */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Removes files, durably; those that are not there are no error. */
export async function removeFiles(files: readonly string[]): Promise<void> {
  for (const file of files) await rm(file, { force: true });
  for (const folder of new Set(files.map((file) => dirname(file)))) await syncPath(folder);
}

export async function exists(file: string): Promise<boolean> {
  try {
    await stat(file);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}
