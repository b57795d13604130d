// Locks by files that say which process is at something: a VM's lock, a set's journal. Each begins with the same
// members, and an owner that was killed is told apart from one that lives (owner.ts). A lock is taken by link(2), whole
// or not at all.
import { createHash, randomBytes } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import * as v from 'valibot';
import { defined } from '../../defined.js';
import { Deadline } from '../../deadline.js';
import { isErrno, UsageError } from '../../errors.js';
import { throwIfInterrupted } from '../../confirm.js';
import { writeIfAbsent } from '../images/durable-file.js';
import { ownerSchema, ownerState, thisProcess, type Owner, type OwnerState } from './owner.js';

const operations = ['create', 'commit', 'revert', 'delete', 'copy', 'prune', 'recover', 'backup', 'restore'] as const;
export type Operation = (typeof operations)[number];

/** Members of every such file: who, since when, and at what. */
export const workEntries = {
  format: v.literal(1),
  operation: v.picklist(operations),
  since: v.string(),
  owner: ownerSchema,
} as const;

const lockSchema = v.strictObject({
  ...workEntries,
  set: v.optional(v.string()),
  /** No two locks have the same text. */
  token: v.string(),
});
export type LockEntry = v.InferOutput<typeof lockSchema>;

/** One piece of work: who is at it, since when, and what it is. */
interface WorkEntry {
  readonly operation: Operation;
  readonly set?: string | undefined;
  readonly since: string;
  readonly owner: Owner;
}

export interface FoundWork<T extends WorkEntry = WorkEntry> {
  /** The work; undefined if the file is none of ours: nothing of ours writes such a one. */
  readonly entry: T | undefined;
  readonly owner: OwnerState;
  readonly text: string;
}

/** The work that the file tells of; undefined if there is no file. Never throws for what is in it. */
export async function readWork<T extends WorkEntry>(
  file: string,
  schema: v.GenericSchema<unknown, T>,
): Promise<FoundWork<T> | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
  const entry = parse(text, schema);
  return { entry, owner: entry === undefined ? 'gone' : await ownerState(entry.owner), text };
}

function parse<T>(text: string, schema: v.GenericSchema<unknown, T>): T | undefined {
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

interface NewWork extends WorkEntry {
  readonly format: 1;
}

/**
 * The entry, if there is a journal. Throws a UsageError `E_UNFINISHED` for one that cannot be read, as that of a newer
 * version: what it tells of may matter.
 */
export function entryOrRefuse<T extends WorkEntry>(file: string, found: FoundWork<T> | undefined): T | undefined {
  if (found === undefined || found.entry !== undefined) return found?.entry;
  const message = `${file} tells of work that was not finished, in a format that this version does not know`;
  throw new UsageError(
    'E_UNFINISHED',
    `${message}: use the version that wrote it, or look at what it says and remove it`,
  );
}

/** The members of something that this process begins. */
export async function newWork(operation: Operation): Promise<NewWork> {
  return { format: 1, operation, since: new Date().toISOString(), owner: await thisProcess() };
}

export function workText(entry: object): string {
  return `${JSON.stringify(entry, undefined, 2)}\n`;
}

interface Work {
  readonly operation: Operation;
  readonly set?: string | undefined;
}

export interface LockOptions {
  /** For messages: `VM db1`. */
  readonly what: string;
  /** How long to wait for somebody else's end. */
  readonly waitMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** How often a lock that somebody else has is looked at again. */
const POLL_MS = 50;

/** Held until disposed (which never throws), or until the process ends, however it ends. */
export interface OwnerLock extends AsyncDisposable {
  readonly file: string;
}

/**
 * Takes the lock. Throws a UsageError `E_VM_BUSY` that names who has it and for what, if he still has it after `waitMs`;
 * a QuiesceError when interrupted meanwhile.
 */
export async function takeLock(file: string, { operation, set }: Work, options: LockOptions): Promise<OwnerLock> {
  const token = randomBytes(8).toString('hex');
  const entry: LockEntry = { ...(await newWork(operation)), ...defined({ set }), token };
  const text = workText(entry);
  const deadline = new Deadline(options.waitMs);
  for (;;) {
    const there = await readLock(file);
    if (there === undefined) {
      if (await writeIfAbsent(file, text)) break;
    } else if (there.owner === 'gone') await removeStale(file, there.text, { operation, set }, options);
    else await waitFor(file, there, deadline, options);
  }
  return {
    file,
    async [Symbol.asyncDispose]() {
      try {
        // Somebody may have been told to remove it, and another may have taken it since.
        if ((await readLock(file))?.text === text) await rm(file, { force: true });
      } catch {
        // A lock that is left has an owner that is gone.
      }
    },
  };
}

/** Returns when nobody has the lock. Throws what `takeLock` does. */
export async function waitUntilFree(file: string, options: LockOptions): Promise<void> {
  const deadline = new Deadline(options.waitMs);
  for (;;) {
    const there = await readLock(file);
    if (there === undefined || there.owner === 'gone') return;
    await waitFor(file, there, deadline, options);
  }
}

/** Who has the lock now; undefined if nobody has. */
export async function lockHolder(file: string): Promise<FoundWork<LockEntry> | undefined> {
  const there = await readLock(file);
  return there?.owner === 'gone' ? undefined : there;
}

async function readLock(file: string): Promise<FoundWork<LockEntry> | undefined> {
  return await readWork(file, lockSchema);
}

async function waitFor(
  file: string,
  there: FoundWork<LockEntry>,
  deadline: Deadline,
  { what, signal }: LockOptions,
): Promise<void> {
  if (deadline.passed) throw busyError('E_VM_BUSY', what, file, there);
  await sleep(Math.min(POLL_MS, Math.max(1, deadline.remainingMs)));
  if (signal !== undefined) throwIfInterrupted(signal, 'nothing was done');
}

// Two may have seen the same stale lock, and the first of them may have taken the place since: only who holds the lock
// of this very text removes it, and looks at it again before. A text never comes back, so this other lock may be left
// behind.
async function removeStale(file: string, stale: string, work: Work, options: LockOptions): Promise<void> {
  const hash = createHash('sha256').update(stale).digest('hex').slice(0, 16);
  const claim = await takeLock(`${file}.${hash}.stale`, work, { ...options, waitMs: Math.max(options.waitMs, 1000) });
  try {
    if ((await readLock(file))?.text === stale) await rm(file, { force: true });
  } finally {
    await claim[Symbol.asyncDispose]();
  }
}

/** For people: who is at the work, and what it is. */
function describeWork({ entry }: FoundWork): string {
  if (entry === undefined) return 'another process';
  const set = entry.set === undefined ? '' : ` ${entry.set}`;
  return `process ${entry.owner.pid} (${entry.operation}${set}, since ${entry.since})`;
}

export function busyError(code: 'E_VM_BUSY' | 'E_SET_BUSY', what: string, file: string, there: FoundWork): UsageError {
  const hint = there.owner === 'elsewhere' ? `, of another container; if it has ended, remove ${file}` : '';
  return new UsageError(code, `${what} is being worked on by ${describeWork(there)}${hint}`, {
    facts: { file, entry: there.entry, owner: there.owner },
  });
}
