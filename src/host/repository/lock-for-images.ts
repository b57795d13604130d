// Locks the backups of a VM for images outside the repository that lie on them. Such a lock outlives the process that took
// it: on this host it counts while one of the images lies on another, on other hosts for some days after it was renewed last.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { HeldLock, EXPIRES_MS } from './held-lock.js';
import { UsageError } from '../../errors.js';
import { describe, isHere, isOver, locksFolder, newLock, readLock, take, type Lock } from './lock-file.js';
import type { Repository } from './repository.js';

/** How long other hosts take it for held. */
export const IMAGES_LAST_MS = 7 * 24 * 3_600_000;

/**
 * Removed when disposed, unless it is left. The images need not be there yet. Throws a UsageError `E_REPOSITORY` if it cannot
 * be written.
 */
export async function lockForImages(
  repository: Repository,
  key: string,
  { operation, images }: { readonly operation: string; readonly images: readonly string[] },
): Promise<HeldLock> {
  const lock: Lock = { ...(await newLock(operation, EXPIRES_MS)), images: [...images] };
  const file = join(await locksFolder(repository), `${key}.read-${lock.token}.json`);
  await take(file, lock);
  return new HeldLock(file, lock);
}

export interface ImagesLock {
  readonly file: string;
  readonly lock: Lock & { readonly images: string[] };
}

/** Those that this host has taken, whether they still count or not. */
export async function imagesLocks(repository: Repository, key: string): Promise<ImagesLock[]> {
  const found: ImagesLock[] = [];
  for (const each of await everyImagesLock(repository, key)) if (await isHere(each.lock)) found.push(each);
  return found;
}

/** Throws a UsageError `E_UNFINISHED` if one counts: the VM was started from a backup, and is on other images now. */
export async function refuseStarted(repository: Repository, key: string): Promise<void> {
  for (const { file, lock } of await everyImagesLock(repository, key)) {
    if (await isOver({ lock, expires: Date.parse(lock.expires), text: '' })) continue;
    const message = `the VM was started from a backup, and its images still lie on the repository: ${describe(file, lock)}`;
    throw new UsageError('E_UNFINISHED', `${message}; the images it had before are not backed up in its name`);
  }
}

async function everyImagesLock(repository: Repository, key: string): Promise<ImagesLock[]> {
  const folder = await locksFolder(repository);
  const found: ImagesLock[] = [];
  for (const name of (await readdir(folder)).filter((each) => each.startsWith(`${key}.read-`))) {
    if (!name.endsWith('.json')) continue;
    const file = join(folder, name);
    const lock = (await readLock(file))?.lock;
    if (lock?.images === undefined) continue;
    found.push({ file, lock: { ...lock, images: lock.images } });
  }
  return found;
}

/** Renews a lock that an earlier process left, until it is disposed: it is removed then, unless it is left again. */
export function heldAgain({ file, lock }: ImagesLock): HeldLock {
  return new HeldLock(file, lock, IMAGES_LAST_MS);
}
