// Keeps the journal of a backup, STATE_DIR/VM/backup.json, which is there while one is made: where it goes, what it is
// called in QEMU, and which guest is held. `recover`, and the next backup, put right by it what a killed tool left. Only
// who holds the VM's lock writes one.
import { join } from 'node:path';
import * as v from 'valibot';
import { writeDurably } from '../images/durable-file.js';
import { holdSchema, removeJournal, type JournalHold } from '../sets/journal.js';
import { newWork, readWork, workEntries, workText, type FoundWork } from '../sets/owner-lock.js';

const entrySchema = v.strictObject({
  ...workEntries,
  /** Folder and id of the repository, the VM's folder in it, and the run. */
  repository: v.strictObject({ path: v.string(), id: v.string() }),
  key: v.string(),
  run: v.string(),
  targets: v.array(
    v.strictObject({
      node: v.string(),
      jobId: v.string(),
      /** Absent in journals of older versions. */
      file: v.optional(v.string(), ''),
      checkpoint: v.optional(v.string()),
    }),
  ),
  /** By a write of the guest that failed, before anything was done. Absent in journals of older versions. */
  pausedBefore: v.optional(v.boolean()),
  hold: v.optional(holdSchema),
  /** The work is over, though its owner may live on: only the hold is left to be looked at. */
  over: v.optional(v.boolean()),
});
export type BackupEntry = v.InferOutput<typeof entrySchema>;

export function backupJournalFile(vmFolder: string): string {
  return join(vmFolder, 'backup.json');
}

/** The journal, if there is one. Never throws for what is in it. */
export async function readBackupJournal(vmFolder: string): Promise<FoundWork<BackupEntry> | undefined> {
  const there = await readWork(backupJournalFile(vmFolder), entrySchema);
  return there?.entry?.over === true ? { ...there, owner: 'gone' } : there;
}

/** The guest is known to be thawed: what else was left is still to be put right. */
export async function forgetHold(vmFolder: string): Promise<void> {
  const there = await readBackupJournal(vmFolder);
  if (there?.entry === undefined) return;
  await writeDurably(backupJournalFile(vmFolder), workText({ ...there.entry, hold: undefined }));
}

export class BackupJournal {
  readonly #file: string;
  #entry: BackupEntry;

  private constructor(file: string, entry: BackupEntry) {
    this.#file = file;
    this.#entry = entry;
  }

  /** Durable when it returns. */
  static async begin(
    vmFolder: string,
    work: Pick<BackupEntry, 'repository' | 'key' | 'run' | 'targets' | 'pausedBefore'>,
  ): Promise<BackupJournal> {
    const journal = new BackupJournal(backupJournalFile(vmFolder), {
      ...(await newWork('backup')),
      operation: 'backup',
      ...work,
    });
    await journal.#write();
    return journal;
  }

  /** Durable when it returns: the guest is about to be held. */
  async holds(hold: JournalHold): Promise<void> {
    this.#entry = { ...this.#entry, hold };
    await this.#write();
  }

  /** The guest is thawed, and says so. */
  async released(): Promise<void> {
    this.#entry = { ...this.#entry, hold: undefined };
    await this.#write();
  }

  /** Everything is as it should be. Never throws: a journal that is left has an owner that is gone. */
  async end(): Promise<void> {
    await removeJournal(this.#file).catch(() => undefined);
  }

  /** Something is left, in QEMU, in the repository or in the guest, for `recover` to put right. Never throws. */
  async leave(): Promise<void> {
    this.#entry = { ...this.#entry, over: true };
    await this.#write().catch(() => undefined);
  }

  async #write(): Promise<void> {
    await writeDurably(this.#file, workText(this.#entry));
  }
}
