// Locks the backups of a VM in a repository, which several hosts may share: REPO/locks/VM.json for who changes them,
// REPO/locks/VM.read-TOKEN.json for who reads them. A lock says who has it and until when; its owner renews it. One whose
// process ended on this host, or whose time is over, is nobody's. Clocks of hosts that share a repository must agree by
// minutes.
import { randomBytes } from 'node:crypto';
import { link, mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as v from 'valibot';
import { throwIfInterrupted } from '../../confirm.js';
import { Deadline, withLimit } from '../../deadline.js';
import { isErrno, UsageError } from '../../errors.js';
import { syncPath, writeDurably } from '../images/durable-file.js';
import { ownerSchema, ownerState, thisProcess } from '../sets/owner.js';
import { LOCKS } from './layout.js';
import type { Repository } from './repository.js';

/** Long enough for a host that is suspended for a moment, or a storage that hangs. */
const EXPIRES_MS = 10 * 60_000;
const RENEW_MS = EXPIRES_MS / 5;
const POLL_MS = 100;
/** Where the repository hangs, the lock is left: its owner is gone then. */
const RELEASE_MS = 10_000;

const lockSchema = v.strictObject({
  format: v.literal(1),
  host: v.string(),
  owner: ownerSchema,
  /** For people: `backup run`. */
  operation: v.string(),
  since: v.string(),
  /** ISO 8601, UTC. */
  expires: v.string(),
  /** No two locks have the same. */
  token: v.string(),
});
type Lock = v.InferOutput<typeof lockSchema>;

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
    const lock = await newLock(options.operation);
    if (await take(file, lock)) return held(file, lock);
    const there = await readLock(file);
    if (there !== undefined && (await isOver(there.lock))) {
      await removeStale(file, there.text);
      continue;
    }
    await waitFor(there?.lock, deadline, options);
  }
}

/** Says that somebody reads the backups of the VM: nothing of them is removed meanwhile. */
export async function lockForReading(
  repository: Repository,
  key: string,
  { operation }: Pick<RepositoryLockOptions, 'operation'>,
): Promise<RepositoryLock> {
  const lock = await newLock(operation);
  const file = join(await locksFolder(repository), `${key}.read-${lock.token}.json`);
  await take(file, lock);
  return held(file, lock);
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
    let reader: Lock | undefined;
    for (const name of (await readdir(folder)).filter((each) => each.startsWith(prefix) && each.endsWith('.json'))) {
      const there = await readLock(join(folder, name));
      if (there === undefined) continue;
      if (await isOver(there.lock)) await rm(join(folder, name), { force: true });
      else reader = there.lock;
    }
    if (reader === undefined) return;
    await waitFor(reader, deadline, options);
  }
}

/** Who changes the backups of the VM now, for people; undefined if nobody does. */
export async function whoChanges({ path }: Repository, key: string): Promise<string | undefined> {
  const there = await readLock(join(path, LOCKS, `${key}.json`));
  return there === undefined || (await isOver(there.lock)) ? undefined : describe(there.lock);
}

async function locksFolder({ path }: Repository): Promise<string> {
  const folder = join(path, LOCKS);
  try {
    await mkdir(folder, { recursive: true, mode: 0o750 });
  } catch (cause) {
    throw new UsageError('E_REPOSITORY', `cannot lock ${path}`, { cause });
  }
  return folder;
}

async function newLock(operation: string): Promise<Lock> {
  return {
    format: 1,
    host: hostname(),
    owner: await thisProcess(),
    operation,
    since: new Date().toISOString(),
    expires: expiry(),
    token: randomBytes(8).toString('hex'),
  };
}

const expiry = (): string => new Date(Date.now() + EXPIRES_MS).toISOString();

function held(file: string, lock: Lock): RepositoryLock {
  const renew = async (): Promise<void> => {
    if ((await readLock(file))?.lock?.token !== lock.token) return;
    await writeDurably(file, textOf({ ...lock, expires: expiry() }));
  };
  let renewal: Promise<void> | undefined;
  const release = async (): Promise<void> => {
    await renewal;
    if ((await readLock(file))?.lock?.token === lock.token) await rm(file, { force: true });
  };
  // One that could not be renewed is seen by check().
  const timer = setInterval(() => {
    renewal ??= renew()
      .catch(() => undefined)
      .finally(() => {
        renewal = undefined;
      });
  }, RENEW_MS).unref();
  return {
    async check() {
      const there = await readLock(file);
      if (there?.lock?.token === lock.token) return;
      const message = `the lock ${file} was lost: ${there === undefined ? 'it is gone' : describe(there.lock)}`;
      throw new UsageError('E_REPOSITORY_BUSY', message);
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      try {
        await withLimit('the lock to be given back', RELEASE_MS, release());
      } catch {
        // A lock that is left has an owner that is gone.
      }
    },
  };
}

// Whole or not at all, and only if nobody was first.
async function take(file: string, lock: Lock): Promise<boolean> {
  const draft = `${file}.${lock.token}.new`;
  try {
    await writeDurably(draft, textOf(lock));
    await link(draft, file);
    await syncPath(join(file, '..'));
    return true;
  } catch (cause) {
    if (isErrno(cause, 'EEXIST')) return false;
    throw new UsageError('E_REPOSITORY', `cannot take the lock ${file}`, { cause });
  } finally {
    await rm(draft, { force: true });
  }
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

interface FoundLock {
  /** Undefined if the file is none of ours. */
  readonly lock: Lock | undefined;
  readonly text: string;
}

async function readLock(file: string): Promise<FoundLock | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
  try {
    const parsed = v.safeParse(lockSchema, JSON.parse(text));
    return { lock: parsed.success ? parsed.output : undefined, text };
  } catch {
    return { lock: undefined, text };
  }
}

async function isOver(lock: Lock | undefined): Promise<boolean> {
  // Nothing of ours writes such a one; it is written whole.
  if (lock === undefined) return true;
  if (lock.host === hostname() && (await ownerState(lock.owner)) === 'gone') return true;
  return Date.parse(lock.expires) < Date.now();
}

async function waitFor(
  lock: Lock | undefined,
  deadline: Deadline,
  { signal }: Pick<RepositoryLockOptions, 'signal'>,
): Promise<void> {
  if (deadline.passed) {
    throw new UsageError('E_REPOSITORY_BUSY', `the VM's backups are being worked on by ${describe(lock)}`);
  }
  await sleep(Math.min(POLL_MS, Math.max(1, deadline.remainingMs)));
  throwIfInterrupted(signal, 'nothing was done');
}

function describe(lock: Lock | undefined): string {
  if (lock === undefined) return 'another process';
  const { owner, host, operation, since, expires } = lock;
  return `process ${owner.pid} of host ${host} (${operation}, since ${since}; it counts as ended after ${expires})`;
}

function textOf(lock: Lock): string {
  return `${JSON.stringify(lock, undefined, 2)}\n`;
}
