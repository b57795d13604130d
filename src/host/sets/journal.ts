// What is being done with a set, and by which process: STATE_DIR/VM/SET/journal.json, there while a command changes the
// set. Manifests say what is; a journal says who is at it, and which guest is held meanwhile: what a manifest cannot
// know once its writer was killed. `recover` reads them.
import { link, readFile, rm } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import * as v from 'valibot';
import { finite } from '../../consistency.js';
import { UsageError } from '../../errors.js';
import { syncPath, writeDurably } from '../images/durable-file.js';
import { isErrno } from '../errno.js';
import type { ManifestStore } from './manifest-store.js';
import { ownerSchema, ownerState, thisProcess, type OwnerState } from './owner.js';

const operations = ['create', 'commit', 'revert', 'delete', 'copy', 'prune', 'recover'] as const;
export type Operation = (typeof operations)[number];

/** Written before the freeze is sent; gone once the thaw is confirmed. */
const holdSchema = v.strictObject({
  session: v.string(),
  /** The agent's socket. */
  qga: v.string(),
  leaseMs: finite,
  since: v.string(),
});
export type JournalHold = v.InferOutput<typeof holdSchema>;

const entrySchema = v.strictObject({
  format: v.literal(1),
  operation: v.picklist(operations),
  since: v.string(),
  owner: ownerSchema,
  hold: v.optional(holdSchema),
  /** The work is over, though its owner may live on: only the hold is left to be looked at. */
  over: v.optional(v.boolean()),
});
export type JournalEntry = v.InferOutput<typeof entrySchema>;

export interface FoundJournal {
  /** Undefined if what is there is no journal: nothing of ours writes such a file. */
  readonly entry: JournalEntry | undefined;
  readonly owner: OwnerState;
}

/** The journal of a set, if there is one. Never throws for what is in it. */
export async function readJournal(file: string): Promise<FoundJournal | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
  const entry = parse(text);
  return { entry, owner: entry === undefined || entry.over === true ? 'gone' : await ownerState(entry.owner) };
}

function parse(text: string): JournalEntry | undefined {
  try {
    const parsed = v.safeParse(entrySchema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** The text of a journal that this process begins. */
async function newEntry(operation: Operation): Promise<JournalEntry> {
  return { format: 1, operation, since: new Date().toISOString(), owner: await thisProcess() };
}

function entryText(entry: JournalEntry): string {
  return `${JSON.stringify(entry, undefined, 2)}\n`;
}

/** A journal this process keeps. End it whatever happens: it says that somebody is at the set. */
export class Journal {
  readonly #file: string;
  #entry: JournalEntry;
  /** A hold that an owner who was killed left behind: not ours to forget. */
  readonly #inherited: JournalEntry | undefined;

  private constructor(file: string, entry: JournalEntry, inherited: JournalEntry | undefined) {
    this.#file = file;
    this.#entry = entry;
    this.#inherited = inherited;
  }

  /** Takes the name of a set that is to be made. Throws what `ManifestStore.claim` does. */
  static async claim(store: ManifestStore, set: string): Promise<Journal> {
    const entry = await newEntry('create');
    await store.claim(set, entryText(entry));
    return new Journal(store.journalFile(set), entry, undefined);
  }

  /** Begins work on a set that is there. Throws a UsageError if another process is at it. */
  static async begin(store: ManifestStore, set: string, operation: Operation): Promise<Journal> {
    const file = store.journalFile(set);
    const entry = await newEntry(operation);
    let inherited: JournalEntry | undefined;
    for (let attempt = 0; attempt < 3; attempt++) {
      if (await takePlace(file, entryText(entry))) return new Journal(file, entry, inherited);
      const there = await readJournal(file);
      if (there === undefined) continue;
      if (there.owner !== 'gone') break;
      if (there.entry?.hold !== undefined) inherited = there.entry;
      await rm(file, { force: true });
    }
    throw await busy(file, set);
  }

  /** Durable when it returns. */
  async holds(hold: JournalHold): Promise<void> {
    this.#entry = { ...this.#entry, hold };
    await writeDurably(this.#file, entryText(this.#entry));
  }

  /**
   * The work is over, well or not. A guest that may still be held is kept in mind. Never throws: a journal that is left
   * has an owner that is gone, and `recover` clears it.
   */
  async end({ keepHold = false } = {}): Promise<void> {
    try {
      if (keepHold && this.#entry.hold !== undefined) {
        await writeDurably(this.#file, entryText({ ...this.#entry, over: true }));
      } else if (this.#inherited !== undefined) await writeDurably(this.#file, entryText(this.#inherited));
      else await removeJournal(this.#file);
    } catch {
      // See above.
    }
  }
}

export async function removeJournal(file: string): Promise<void> {
  await rm(file, { force: true });
  await syncPath(dirname(file)).catch((error: unknown) => {
    // The set is gone, and its journal with it.
    if (!isErrno(error, 'ENOENT')) throw error;
  });
}

/** True while another process is at the set. */
export async function isBusy(store: ManifestStore, set: string): Promise<boolean> {
  const there = await readJournal(store.journalFile(set));
  return there !== undefined && there.owner !== 'gone' && there.entry?.owner.pid !== process.pid;
}

/** Throws a UsageError while another process is at the set. */
export async function refuseBusy(store: ManifestStore, set: string): Promise<void> {
  if (await isBusy(store, set)) throw await busy(store.journalFile(set), set);
}

async function busy(file: string, set: string): Promise<UsageError> {
  const there = await readJournal(file);
  const { entry, owner } = there ?? {};
  const who = entry === undefined ? 'another process' : `process ${entry.owner.pid} (${entry.operation})`;
  const hint = owner === 'elsewhere' ? `, of another container; if it has ended, remove ${file}` : '';
  return new UsageError('E_SET_BUSY', `${set} is being worked on by ${who}${hint}`, { facts: { file, entry } });
}

// Whole or not at all, and only if nobody was first.
async function takePlace(file: string, text: string): Promise<boolean> {
  const draft = `${file}.${process.pid}.${randomBytes(4).toString('hex')}.new`;
  await writeDurably(draft, text);
  try {
    await link(draft, file);
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return false;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
  await syncPath(dirname(file));
  return true;
}
