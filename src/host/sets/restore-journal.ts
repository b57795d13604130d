// Keeps the journal of restores in place, STATE_DIR/VM/restore.json: the drafts that one has made, and the images that are
// written in part. An image is that from before it is written to until it is whole and on the disk, whatever is killed
// meanwhile, and until it is restored anew: such an image holds two instants. Only who holds the VM's lock writes one.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { UsageError } from '../../errors.js';
import { writeDurably } from '../images/durable-file.js';
import { removeJournal } from './journal.js';
import { entryOrRefuse, newWork, readWork, workEntries, workText, type FoundWork } from './owner-lock.js';

const partialSchema = v.strictObject({
  image: v.string(),
  /** Folder of the repository, and the run that it was to hold. */
  repository: v.string(),
  run: v.string(),
});
export type PartialImage = v.InferOutput<typeof partialSchema>;

const entrySchema = v.strictObject({
  ...workEntries,
  drafts: v.array(v.string()),
  partial: v.array(partialSchema),
});
type RestoreEntry = v.InferOutput<typeof entrySchema>;

export function restoreJournalFile(vmFolder: string): string {
  return join(vmFolder, 'restore.json');
}

/** The journal, if there is one. Never throws for what is in it. */
export async function readRestoreJournal(vmFolder: string): Promise<FoundWork<RestoreEntry> | undefined> {
  return await readWork(restoreJournalFile(vmFolder), entrySchema);
}

async function entryOf(vmFolder: string): Promise<RestoreEntry | undefined> {
  return entryOrRefuse(restoreJournalFile(vmFolder), await readRestoreJournal(vmFolder));
}

/** Throws a UsageError `E_UNFINISHED` if an image of the VM is written in part, or nobody knows. */
export async function refuseHalfRestored(vmFolder: string): Promise<void> {
  const [first] = (await entryOf(vmFolder))?.partial ?? [];
  if (first === undefined) return;
  const message = `${first.image} holds run ${first.run} of ${first.repository} only in part: restore it in place again`;
  throw new UsageError('E_UNFINISHED', message);
}

export class RestoreJournal implements AsyncDisposable {
  readonly #file: string;
  #entry: RestoreEntry;

  private constructor(file: string, entry: RestoreEntry) {
    this.#file = file;
    this.#entry = entry;
  }

  /**
   * Takes it over from a tool that was killed. Its drafts go: other clusters differ by now. Throws a UsageError
   * `E_UNFINISHED` for one that cannot be read.
   */
  static async open(vmFolder: string): Promise<RestoreJournal> {
    const { drafts = [], partial = [] } = (await entryOf(vmFolder)) ?? {};
    for (const draft of drafts) await rm(draft, { force: true });
    return new RestoreJournal(restoreJournalFile(vmFolder), { ...(await newWork('restore')), drafts: [], partial });
  }

  /** These files are about to be made; durable when it returns. */
  async drafts(drafts: readonly string[]): Promise<void> {
    await this.#write({ drafts: [...drafts] });
  }

  /** These images are about to be written to; durable when it returns. */
  async begin(images: readonly PartialImage[]): Promise<void> {
    const names = images.map(({ image }) => image);
    await this.#write({ partial: [...this.#entry.partial.filter(({ image }) => !names.includes(image)), ...images] });
  }

  /** The image is whole, and on the disk. */
  async done(image: string): Promise<void> {
    await this.#write({ partial: this.#entry.partial.filter((each) => each.image !== image) });
  }

  isInPart(image: string): boolean {
    return this.#entry.partial.some((each) => each.image === image);
  }

  /** The drafts go, and the journal with them, unless an image is still written in part. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const draft of this.#entry.drafts) await rm(draft, { force: true });
    if (this.#entry.partial.length === 0) await removeJournal(this.#file);
    else await this.#write({ drafts: [] });
  }

  async #write(change: Partial<Pick<RestoreEntry, 'drafts' | 'partial'>>): Promise<void> {
    this.#entry = { ...this.#entry, ...change };
    await writeDurably(this.#file, workText(this.#entry));
  }
}
