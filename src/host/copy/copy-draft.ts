// Keeps a copy in the making: a folder beside its target, `.draft-NAME.PID.XXXXXXXX`, that becomes the target by one
// rename when it is whole. Its manifest.json says from the first moment who is at it, so that one that was left by a
// killed tool is known: the next copy into the same folder removes it, and the set's folder notes where it is, for
// `recover`.
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import * as v from 'valibot';
import { CutError, UsageError } from '../../errors.js';
import { exists, syncPath, writeDurably } from '../images/durable-file.js';
import { describeHolders, holdersOfEach, type Holder } from '../images/image-file.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { ownerSchema, ownerState, thisProcess, type Owner } from '../sets/owner.js';

/** Who makes a copy. Two machines that share a folder must leave each other's drafts alone. */
export interface Copier {
  readonly host: string;
  readonly owner: Owner;
}

const copierSchema = v.object({ copiedBy: v.object({ host: v.string(), owner: ownerSchema }) });
const noteSchema = v.object({ draft: v.string() });
const pattern = /^\.draft-.+\.\d+\.[0-9a-f]{8}$/;

export class CopyDraft implements AsyncDisposable {
  /** Where the copy's files are written to. */
  readonly folder: string;
  readonly copier: Copier;
  readonly #target: string;
  readonly #note: string;

  private constructor(folder: string, target: string, note: string, copier: Copier) {
    this.folder = folder;
    this.#target = target;
    this.#note = note;
    this.copier = copier;
  }

  /** Throws a UsageError if the target is there, or its folder is not. */
  static async begin(target: string, store: ManifestStore, set: string): Promise<CopyDraft> {
    await refuseTarget(target);
    const folder = join(dirname(target), `.draft-${basename(target)}.${process.pid}.${randomBytes(4).toString('hex')}`);
    const copier = { host: hostname(), owner: await thisProcess() };
    const draft = new CopyDraft(folder, target, noteFile(store, set), copier);
    // Noted before the folder is there: no folder may be left of which nobody knows.
    await writeDurably(draft.#note, `${JSON.stringify({ draft: folder })}\n`);
    try {
      await mkdir(folder, { mode: 0o750 });
      await draft.record({ format: 1, state: 'copying', copiedBy: copier });
    } catch (cause) {
      await draft[Symbol.asyncDispose]();
      throw new UsageError('E_TARGET', `cannot write to ${dirname(target)}`, { cause });
    }
    return draft;
  }

  async record(content: object): Promise<void> {
    await writeDurably(join(this.folder, 'manifest.json'), `${JSON.stringify(content, undefined, 2)}\n`);
  }

  /** All that is in it, and the name: durable when it returns. */
  async publish(): Promise<void> {
    await syncPath(this.folder);
    await refuseTarget(this.#target);
    try {
      await rename(this.folder, this.#target);
    } catch (cause) {
      throw new CutError('E_COPY', `${this.#target} could not be named`, { cause });
    }
    await syncPath(dirname(this.#target));
  }

  /** Removes it, unless it became the target. */
  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
    await rm(this.#note, { force: true });
  }
}

async function refuseTarget(target: string): Promise<void> {
  if (!(await exists(target))) return;
  const message = `${target} is already there: name a folder that is not, ${join(target, 'NAME')} for instance`;
  throw new UsageError('E_NAME_TAKEN', message);
}

function noteFile(store: ManifestStore, set: string): string {
  return join(dirname(store.file(set)), 'copy.json');
}

/** Drafts that were left beside the target by tools that were killed. */
export async function deadDrafts(target: string): Promise<string[]> {
  const parent = dirname(target);
  const names = await readdir(parent).catch((cause: unknown) => {
    throw new UsageError('E_TARGET', `cannot use ${parent}`, { cause });
  });
  const found: string[] = [];
  for (const name of names)
    if (pattern.test(name) && (await isDead(join(parent, name)))) found.push(join(parent, name));
  return found;
}

/** The draft that a killed copy of the set left; for `recover`. */
export async function deadDraftOf(store: ManifestStore, set: string): Promise<string | undefined> {
  const draft = await notedDraft(store, set);
  return draft !== undefined && (await isDead(draft)) ? draft : undefined;
}

async function notedDraft(store: ManifestStore, set: string): Promise<string | undefined> {
  const note = v.safeParse(noteSchema, await json(noteFile(store, set)));
  return note.success && pattern.test(basename(note.output.draft)) ? note.output.draft : undefined;
}

/** A draft of a killed copy of the set that a qemu-img still writes to, and who; for `recover`. */
export async function draftWrittenTo(
  store: ManifestStore,
  set: string,
): Promise<{ readonly draft: string; readonly by: string } | undefined> {
  const draft = await notedDraft(store, set);
  if (draft === undefined || !(await isLeft(draft))) return undefined;
  const writers = await writersOf(draft);
  return writers.length === 0 ? undefined : { draft, by: describeHolders(writers) };
}

/**
 * True if its maker has ended and nobody has a file of it open: a qemu-img that a killed tool had started writes on.
 */
async function isDead(draft: string): Promise<boolean> {
  return (await isLeft(draft)) && (await writersOf(draft)).length === 0;
}

/** True if the draft's maker has ended. */
async function isLeft(draft: string): Promise<boolean> {
  const found = v.safeParse(copierSchema, await json(join(draft, 'manifest.json')));
  if (!found.success) return false;
  const { host, owner } = found.output.copiedBy;
  return host === hostname() && (await ownerState(owner)) === 'gone';
}

async function writersOf(draft: string): Promise<Holder[]> {
  const files = (await readdir(draft)).map((name) => join(draft, name));
  return (await holdersOfEach(files)).flat();
}

export async function removeDraft(draft: string): Promise<void> {
  await rm(draft, { recursive: true, force: true });
  await syncPath(dirname(draft));
}

/** The file's JSON; undefined if it is not there, or is none. */
async function json(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch {
    return undefined;
  }
}
