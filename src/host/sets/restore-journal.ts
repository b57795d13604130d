// Keeps the journal of a restore in place, STATE_DIR/VM/restore.json: which images it writes to, by which drafts. Until
// `writes` nothing of an image is changed, and whoever finds the journal of a killed tool may forget it all. From then on
// the images are of two instants, until the restore is done again. Only who holds the VM's lock writes one.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { UsageError } from '../../errors.js';
import { writeDurably } from '../images/durable-file.js';
import { removeJournal } from './journal.js';
import { newWork, readWork, workEntries, workText, type FoundWork } from './owner-lock.js';

const entrySchema = v.strictObject({
  ...workEntries,
  /** Folder of the repository, and the run. */
  repository: v.string(),
  run: v.string(),
  disks: v.array(v.strictObject({ id: v.string(), image: v.string(), draft: v.string() })),
  /** The images are being written to. */
  writes: v.boolean(),
});
type RestoreEntry = v.InferOutput<typeof entrySchema>;

function journalFile(vmFolder: string): string {
  return join(vmFolder, 'restore.json');
}

/** The journal, if there is one. Never throws for what is in it. */
export async function readRestoreJournal(vmFolder: string): Promise<FoundWork<RestoreEntry> | undefined> {
  return await readWork(journalFile(vmFolder), entrySchema);
}

/** The drafts of a restore that was killed: other clusters differ by now. The journal still says what was begun. */
export async function removeDrafts(vmFolder: string): Promise<void> {
  const there = await readRestoreJournal(vmFolder);
  for (const { draft } of there?.entry?.disks ?? []) await rm(draft, { force: true });
}

/** Call it if no image was written to. */
export async function forgetRestore(vmFolder: string): Promise<void> {
  await removeDrafts(vmFolder);
  await removeJournal(journalFile(vmFolder));
}

/** When it is disposed the drafts go, and the journal, unless images are written in part. */
export class RestoreJournal implements AsyncDisposable {
  readonly #folder: string;
  #entry: RestoreEntry;

  private constructor(folder: string, entry: RestoreEntry) {
    this.#folder = folder;
    this.#entry = entry;
  }

  /** Durable when it returns. Images that were written in part still are. */
  static async begin(
    vmFolder: string,
    work: Pick<RestoreEntry, 'repository' | 'run' | 'disks'>,
  ): Promise<RestoreJournal> {
    const left = (await readRestoreJournal(vmFolder))?.entry;
    const entry = { ...(await newWork('restore')), ...work, writes: left?.writes === true };
    const journal = new RestoreJournal(vmFolder, entry);
    await journal.#write();
    return journal;
  }

  /** Images are written to from now on; durable when it returns. */
  async writes(): Promise<void> {
    this.#entry = { ...this.#entry, writes: true };
    await this.#write();
  }

  /** All images are as they should be, and on the disk. */
  written(): void {
    this.#entry = { ...this.#entry, writes: false };
  }

  get isInPart(): boolean {
    return this.#entry.writes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { draft } of this.#entry.disks) await rm(draft, { force: true });
    if (!this.#entry.writes) await removeJournal(journalFile(this.#folder));
  }

  async #write(): Promise<void> {
    await writeDurably(journalFile(this.#folder), workText(this.#entry));
  }
}

/** Throws a UsageError `E_UNFINISHED` if the VM's images hold a run in part. */
export async function refuseHalfRestored(vmFolder: string): Promise<void> {
  const there = await readRestoreJournal(vmFolder);
  if (there?.entry?.writes !== true) return;
  const { run, disks, repository } = there.entry;
  const images = disks.map(({ image }) => image).join(', ');
  const message = `${images} hold run ${run} of ${repository} only in part: restore it in place again, to its end`;
  throw new UsageError('E_UNFINISHED', message);
}
