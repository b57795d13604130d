// Locks the backups of a VM in a repository, which several hosts may share: REPO/locks/VM.json for who changes them,
// REPO/locks/VM.read-TOKEN.json for who reads them. A lock says who has it and until when; its owner renews it. One whose
// process ended on this host (told by its machine id: names of hosts are not unique), or whose time is over, is nobody's.
// Clocks of hosts that share a repository must agree by minutes. What is in a lock: lock-file.ts; one for images that lie on
// the backups: lock-for-images.ts.
import { randomBytes } from 'node:crypto';
import { link, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { throwIfInterrupted } from '../../confirm.js';
import { Deadline } from '../../deadline.js';
import { isErrno, UsageError } from '../../errors.js';
import { EXPIRES_MS, HeldLock } from './held-lock.js';
import { LOCKS } from './layout.js';
import { describe, isOver, locksFolder, newLock, readLock, take, type Lock } from './lock-file.js';
import type { Repository } from './repository.js';

const POLL_MS = 100;

export interface RepositoryLockOptions {
  readonly operation: string;
  readonly waitMs: number;
  readonly signal: AbortSignal;
}

/** Held until disposed, or until the process ends. */
export interface RepositoryLock extends AsyncDisposable {
  /** Throws a UsageError `E_REPOSITORY_BUSY` if another process has taken it since, as one that seemed dead. */
  check(): Promise<void>;
}

/**
 * Takes the lock of who changes the backups of the VM. Throws a UsageError `E_REPOSITORY_BUSY` that names who has it after
 * `waitMs`.
 */
export async function lockForChange(
  repository: Repository,
  key: string,
  options: RepositoryLockOptions,
): Promise<RepositoryLock> {
  const file = join(await locksFolder(repository), `${key}.json`);
  const deadline = new Deadline(options.waitMs);
  for (;;) {
    const lock = await newLock(options.operation, EXPIRES_MS);
    if (await take(file, lock)) return new HeldLock(file, lock);
    const there = await readLock(file);
    if (there !== undefined && (await isOver(there))) {
      await removeStale(file, there.text);
      continue;
    }
    await waitFor(file, there?.lock, deadline, options);
  }
}

export interface ReadingOptions extends Pick<RepositoryLockOptions, 'operation'> {
  /** One line that people have to see. */
  readonly onWarning: (text: string) => void;
}

/**
 * Says that somebody reads the backups of the VM: nothing of them is removed meanwhile. Where nothing can be written (a
 * read-only mount, a snapshot of a filesystem) they are read without a lock, and that is told. Throws a UsageError
 * `E_REPOSITORY` if it cannot be taken for another reason.
 */
export async function lockForReading(
  repository: Repository,
  key: string,
  { operation, onWarning }: ReadingOptions,
): Promise<RepositoryLock> {
  const lock = await newLock(operation, EXPIRES_MS);
  try {
    const file = join(await locksFolder(repository), `${key}.read-${lock.token}.json`);
    await take(file, lock);
    return new HeldLock(file, lock);
  } catch (error) {
    if (!isReadOnly(error)) throw error;
    onWarning(`${repository.path} is read-only: it is read without a lock, and nothing is recorded in it`);
    return { check: () => Promise.resolve(), [Symbol.asyncDispose]: () => Promise.resolve() };
  }
}

/** True if it was thrown, at some distance, because the filesystem is read-only. */
export function isReadOnly(error: unknown): boolean {
  return error instanceof Error && (isErrno(error, 'EROFS') || isReadOnly(error.cause));
}

/** Returns when nobody reads the backups of the VM. Throws as lockForChange. */
export async function waitForReaders(
  repository: Repository,
  key: string,
  options: RepositoryLockOptions,
): Promise<void> {
  const folder = await locksFolder(repository);
  const deadline = new Deadline(options.waitMs);
  const prefix = `${key}.read-`;
  for (;;) {
    let reader: { readonly file: string; readonly lock: Lock | undefined } | undefined;
    for (const name of (await readdir(folder)).filter((each) => each.startsWith(prefix) && each.endsWith('.json'))) {
      const file = join(folder, name);
      const there = await readLock(file);
      if (there === undefined) continue;
      if (await isOver(there)) await rm(file, { force: true });
      else reader = { file, lock: there.lock };
    }
    if (reader === undefined) return;
    await waitFor(reader.file, reader.lock, deadline, options);
  }
}

/** Who changes the backups of the VM now, for people; undefined if nobody does. */
export async function whoChanges({ path }: Repository, key: string): Promise<string | undefined> {
  const file = join(path, LOCKS, `${key}.json`);
  const there = await readLock(file);
  return there === undefined || (await isOver(there)) ? undefined : describe(file, there.lock);
}

// Moved away by one alone. If it was another's by then, it is put back: nobody can have taken its place as long as it has
// not lost it for good.
async function removeStale(file: string, stale: string): Promise<void> {
  const away = `${file}.${randomBytes(4).toString('hex')}.stale`;
  try {
    await rename(file, away);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return;
    throw error;
  }
  if ((await readFile(away, 'utf8')) !== stale) await link(away, file).catch(() => undefined);
  await rm(away, { force: true });
}

async function waitFor(
  file: string,
  lock: Lock | undefined,
  deadline: Deadline,
  { signal }: Pick<RepositoryLockOptions, 'signal'>,
): Promise<void> {
  if (deadline.passed) {
    throw new UsageError('E_REPOSITORY_BUSY', `the VM's backups are being worked on by ${describe(file, lock)}`);
  }
  await sleep(Math.min(POLL_MS, Math.max(1, deadline.remainingMs)));
  throwIfInterrupted(signal, 'nothing was done');
}
