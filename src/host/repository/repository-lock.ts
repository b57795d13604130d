// Locks the backups of a VM in a repository, which several hosts may share: REPO/locks/VM.json for who changes them,
// REPO/locks/VM.read-TOKEN.json for who reads them. A lock says who has it and until when; its owner renews it. One whose
// process ended on this host (told by its machine id: names of hosts are not unique), or whose time is over, is nobody's.
// One of a format that is not known counts until its time is over. Clocks of hosts that share a repository must agree by
// minutes.
import { randomBytes } from 'node:crypto';
import { link, readdir, readFile, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as v from 'valibot';
import { throwIfInterrupted } from '../../confirm.js';
import { Deadline, withLimit } from '../../deadline.js';
import { isErrno, UsageError } from '../../errors.js';
import { makeFolder, syncPath, writeDurably } from '../images/durable-file.js';
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
  /** Tells hosts of one name apart; empty if that is not known. */
  machine: v.string(),
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
  const lock = await newLock(operation);
  try {
    const file = join(await locksFolder(repository), `${key}.read-${lock.token}.json`);
    await take(file, lock);
    return held(file, lock);
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

async function locksFolder({ path }: Repository): Promise<string> {
  const folder = join(path, LOCKS);
  try {
    await makeFolder(folder);
  } catch (cause) {
    throw new UsageError('E_REPOSITORY', `cannot lock ${path}`, { cause });
  }
  return folder;
}

async function newLock(operation: string): Promise<Lock> {
  return {
    format: 1,
    host: hostname(),
    machine: await machineId(),
    owner: await thisProcess(),
    operation,
    since: new Date().toISOString(),
    expires: expiry(),
    token: randomBytes(8).toString('hex'),
  };
}

/** Of this host, whatever it is called; empty if it has none. */
async function machineId(): Promise<string> {
  return (await readFile('/etc/machine-id', 'utf8').catch(() => '')).trim();
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
      const message = `the lock ${file} was lost: ${there === undefined ? 'it is gone' : describe(file, there.lock)}`;
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
    try {
      await link(draft, file);
    } finally {
      await rm(draft, { force: true });
    }
    await syncPath(join(file, '..'));
    return true;
  } catch (cause) {
    if (isErrno(cause, 'EEXIST')) return false;
    throw new UsageError('E_REPOSITORY', `cannot take the lock ${file}`, { cause });
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
  /** Undefined if it is of a format that is not known. */
  readonly lock: Lock | undefined;
  /** Until when it counts, as far as it says (milliseconds since 1970). */
  readonly expires: number | undefined;
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
  const json = parsedJson(text);
  const known = v.safeParse(lockSchema, json);
  const until = v.safeParse(expirySchema, json);
  const expires = until.success ? Date.parse(until.output.expires) : undefined;
  return { lock: known.success ? known.output : undefined, expires, text };
}

/** What a lock of any format says. */
const expirySchema = v.object({ expires: v.pipe(v.string(), v.isoTimestamp()) });

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function isOver({ lock, expires }: FoundLock): Promise<boolean> {
  if (lock !== undefined && (await isHere(lock)) && (await ownerState(lock.owner)) === 'gone') return true;
  // One that says nothing of it is for a person to remove: it may be that of a newer version.
  return expires !== undefined && expires < Date.now();
}

/** True if this very host made it. */
async function isHere({ host, machine }: Lock): Promise<boolean> {
  return host === hostname() && machine !== '' && machine === (await machineId());
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

function describe(file: string, lock: Lock | undefined): string {
  if (lock === undefined) return `another process, of another version (if it has ended, remove ${file})`;
  const { owner, host, operation, since, expires } = lock;
  return `process ${owner.pid} of host ${host} (${operation}, since ${since}; it counts as ended after ${expires})`;
}

function textOf(lock: Lock): string {
  return `${JSON.stringify(lock, undefined, 2)}\n`;
}
