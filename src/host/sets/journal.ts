// Keeps the journal of a set, STATE_DIR/VM/SET/journal.json, which is there while a command changes the set. A manifest
// says what is; the journal says who is at it, and which guest is held meanwhile, which a manifest cannot know once its
// writer was killed. `recover` reads journals. Only who holds the VM's lock writes one (vm-lock.ts).
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import * as v from 'valibot';
import { isErrno } from '../../errors.js';
import { finite } from '../../consistency.js';
import { syncPath, writeDurably } from '../images/durable-file.js';
import type { ManifestStore } from './manifest-store.js';
import { busyError, newWork, readWork, workEntries, workText, type FoundWork, type Operation } from './owner-lock.js';

/** Written before the freeze is sent; gone once the thaw is confirmed. */
export const holdSchema = v.strictObject({
  session: v.string(),
  /** The agent's socket. */
  qga: v.string(),
  leaseMs: finite,
  since: v.string(),
});
export type JournalHold = v.InferOutput<typeof holdSchema>;

const entrySchema = v.strictObject({
  ...workEntries,
  hold: v.optional(holdSchema),
  /** The work is over, though its owner may live on: only the hold is left to be looked at. */
  over: v.optional(v.boolean()),
});
export type JournalEntry = v.InferOutput<typeof entrySchema>;

/** The journal of a set, if there is one. Never throws for what is in it. */
export async function readJournal(file: string): Promise<FoundWork<JournalEntry> | undefined> {
  const there = await readWork(file, entrySchema);
  return there?.entry?.over === true ? { ...there, owner: 'gone' } : there;
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
    const entry = await newWork('create');
    await store.claim(set, workText(entry));
    return new Journal(store.journalFile(set), entry, undefined);
  }

  /**
   * Begins work on a set that is there. Throws a UsageError if another process is at it all the same: one of an older
   * version, that does not know of the VM's lock.
   */
  static async begin(store: ManifestStore, set: string, operation: Operation): Promise<Journal> {
    const file = store.journalFile(set);
    await refuseBusy(store, set);
    const there = await readJournal(file);
    const entry = await newWork(operation);
    await writeDurably(file, workText(entry));
    return new Journal(file, entry, there?.entry?.hold === undefined ? undefined : there.entry);
  }

  /** Durable when it returns. */
  async holds(hold: JournalHold): Promise<void> {
    this.#entry = { ...this.#entry, hold };
    await writeDurably(this.#file, workText(this.#entry));
  }

  /**
   * The work is over, well or not. A guest that may still be held is kept in mind. Never throws: a journal that is left
   * has an owner that is gone, and `recover` clears it.
   */
  async end({ keepHold = false } = {}): Promise<void> {
    try {
      if (keepHold && this.#entry.hold !== undefined) {
        await writeDurably(this.#file, workText({ ...this.#entry, over: true }));
      } else if (this.#inherited !== undefined) await writeDurably(this.#file, workText(this.#inherited));
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

/** Throws a UsageError while a process is at the set. */
export async function refuseBusy(store: ManifestStore, set: string): Promise<void> {
  const file = store.journalFile(set);
  const there = await readJournal(file);
  if (there !== undefined && there.owner !== 'gone') throw busyError('E_SET_BUSY', set, file, there);
}
