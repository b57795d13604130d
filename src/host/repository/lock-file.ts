// The files by which the backups of a VM are locked (repository-lock.ts): what is in one, whether it still counts, and how
// one is taken. One of a format that is not known counts until its time is over.
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { isErrno, UsageError } from '../../errors.js';
import { exists, makeFolder, syncPath } from '../images/durable-file.js';
import { referencesOf } from '../images/references.js';
import { ownerSchema, ownerState, thisProcess } from '../sets/owner.js';
import { LOCKS } from './layout.js';
import type { Repository } from './repository.js';
import { takePlace } from './take-place.js';

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
  /** Images of that host which lie on the backups, or will: while one does, the lock counts there, whoever has ended. */
  images: v.optional(v.pipe(v.array(v.string()), v.minLength(1))),
});
export type Lock = v.InferOutput<typeof lockSchema>;

export async function locksFolder({ path }: Repository): Promise<string> {
  const folder = join(path, LOCKS);
  try {
    await makeFolder(folder);
  } catch (cause) {
    throw new UsageError('E_REPOSITORY', `cannot lock ${path}`, { cause });
  }
  return folder;
}

/** This process's. It counts for `lastsMs` on hosts that cannot see whether its owner lives. */
export async function newLock(operation: string, lastsMs: number): Promise<Lock> {
  return {
    format: 1,
    host: hostname(),
    machine: await machineId(),
    owner: await thisProcess(),
    operation,
    since: new Date().toISOString(),
    expires: expiryIn(lastsMs),
    token: randomBytes(8).toString('hex'),
  };
}

/** Of this host, whatever it is called; empty if it has none. */
async function machineId(): Promise<string> {
  return (await readFile('/etc/machine-id', 'utf8').catch(() => '')).trim();
}

export function expiryIn(ms: number): string {
  return new Date(Date.now() + ms).toISOString();
}

/** Whole or not at all, and only if nobody was first. Throws a UsageError `E_REPOSITORY` if it cannot be written. */
export async function take(file: string, lock: Lock): Promise<boolean> {
  try {
    return await takePlace(file, textOf(lock));
  } catch (cause) {
    throw new UsageError('E_REPOSITORY', `cannot take the lock ${file}`, { cause });
  }
}

export function textOf(lock: Lock): string {
  return `${JSON.stringify(lock, undefined, 2)}\n`;
}

export interface FoundLock {
  /** Undefined if it is of a format that is not known. */
  readonly lock: Lock | undefined;
  /** Until when it counts, as far as it says (milliseconds since 1970). */
  readonly expires: number | undefined;
  readonly text: string;
}

export async function readLock(file: string): Promise<FoundLock | undefined> {
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

/** True if it is nobody's any more. */
export async function isOver({ lock, expires }: FoundLock): Promise<boolean> {
  if (lock !== undefined && (await isHere(lock))) {
    const owner = await ownerState(lock.owner);
    // This host sees for itself, however long it takes.
    const free = lock.images === undefined ? undefined : await areFree(lock.images);
    if (free !== undefined) return free;
    // What cannot be seen may lie on a filesystem that is not mounted: its time decides, unless somebody is at it.
    if (lock.images !== undefined && owner !== 'gone') return false;
    if (lock.images === undefined && owner === 'gone') return true;
  }
  // One that says nothing of it is for a person to remove: it may be that of a newer version.
  return expires !== undefined && expires < Date.now();
}

/** True if this very host made it. */
export async function isHere({ host, machine }: Lock): Promise<boolean> {
  return host === hostname() && machine !== '' && machine === (await machineId());
}

/** Undefined if none is seen to lie on another, and not all are there. */
async function areFree(images: readonly string[]): Promise<boolean | undefined> {
  const free = await Promise.all(images.map(isFree));
  if (free.includes(false)) return false;
  return free.includes(undefined) ? undefined : true;
}

/** False while the image lies on another, as far as can be seen; undefined if it is not there. True is durable. */
export async function isFree(image: string): Promise<boolean | undefined> {
  try {
    if (!(await exists(image))) return undefined;
    if ((await referencesOf(image)).backingName !== undefined) return false;
    await syncPath(image);
    return true;
  } catch (error) {
    // Not ours to read: to err means to keep what it may lie on.
    if (isErrno(error, 'EACCES', 'EPERM')) return false;
    throw error;
  }
}

/** Who has it, for people. */
export function describe(file: string, lock: Lock | undefined): string {
  if (lock === undefined) return `another process, of another version (if it has ended, remove ${file})`;
  const { owner, host, operation, since, expires, images } = lock;
  const process = `process ${owner.pid} of host ${host} (${operation}, since ${since}; it counts as ended after ${expires})`;
  if (images === undefined) return process;
  return `${process}, whose images lie on them (${images.join(', ')}): "backup recover" there tells more`;
}
