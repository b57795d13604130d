// `snapshot copy`: copies the state of a cut out of the images that hold it into a folder that is complete when it has
// its name: images that qemu-img alone can read, and a manifest.json that says what they are worth. The set is pinned
// meanwhile by its journal. That nobody writes to what is read is guarded by QEMU's locks (copy-disk.ts), and looked at
// before and after.
import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Deadline } from '../../deadline.js';
import { BridgeError, CutError, UsageError, describeError } from '../../errors.js';
import { throwIfInterrupted } from '../../confirm.js';
import { plainNames } from '../images/plain-names.js';
import { fileStateIfThere, isSameState, type FileState } from '../images/file-state.js';
import { Journal } from '../sets/journal.js';
import { baseDoubts, lostBases } from '../sets/base-state.js';
import type { Manifest, ManifestDisk } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { findAndLockVm, type LockRequest } from '../sets/vm-lock.js';
import { copyDisk, neededBytes, type CopyFormat } from './copy-disk.js';
import { CopyDraft, deadDraftOf, deadDrafts, removeDraft } from './copy-draft.js';
import { recordOf, type CopiedDisk, type CopyRecord } from './copy-record.js';
import { chainOf, type ImageChain } from './image-chain.js';

export interface CopyOptions {
  /** Held while the copy is begun: others may work on the VM while it goes on, but not on the set. */
  readonly lock: LockRequest;
  readonly monitorTimeoutMs: number;
  readonly set: string;
  /** Absolute; must not be there, its folder must. */
  readonly target: string;
  readonly format: CopyFormat;
  readonly compress: boolean;
  /** One image per disk; else one per layer. */
  readonly flatten: boolean;
  readonly verify: boolean;
  /** Bytes per second. */
  readonly speed?: number;
  /** How long the whole copy may take. */
  readonly limitMs: number;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

/**
 * Copies. Throws a UsageError if the set cannot be copied or the target is there, a QuiesceError when interrupted, a
 * CutError if the copy failed. Of a copy that failed nothing is left.
 */
export async function copySnapshot(options: CopyOptions): Promise<CopyRecord> {
  const { set, signal } = options;
  const { store, journal } = await pin(options);
  try {
    return await copy(store, options);
  } catch (error) {
    throwIfInterrupted(signal, 'the copy was given up, and nothing of it is left');
    if (error instanceof BridgeError) throw error;
    throw new CutError('E_COPY', `${set} was not copied: ${describeError(error)}`, { cause: error });
  } finally {
    await journal.end();
  }
}

async function pin({ lock, monitorTimeoutMs, set }: CopyOptions) {
  await using locked = await findAndLockVm(lock, monitorTimeoutMs);
  const { store } = locked;
  // Says that there is no such set, before a journal is begun.
  await store.read(set);
  return { store, journal: await Journal.begin(store, set, 'copy') };
}

interface Source extends ImageChain {
  readonly disk: ManifestDisk;
  /** How each of its files was before anything was read. */
  readonly before: ReadonlyMap<string, FileState>;
}

async function copy(store: ManifestStore, options: CopyOptions): Promise<CopyRecord> {
  const { set, target, format, flatten, verify, signal } = options;
  const limits = { deadline: new Deadline(options.limitMs), signal };
  const manifest = await store.read(set);
  await checkCopyable(manifest);
  const sources: Source[] = [];
  for (const disk of manifest.disks) sources.push(await sourceOf(disk, limits));
  const left = await deadDraftOf(store, set);
  for (const draft of new Set([...(await deadDrafts(target)), ...(left === undefined ? [] : [left])])) {
    await removeDraft(draft);
  }
  if (!options.compress) await checkRoom(sources, options, limits);
  await using draft = await CopyDraft.begin(target, store, set);
  const copied: CopiedDisk[] = [];
  const names = plainNames(manifest.disks.map(({ id, base }) => ({ id, file: base.file })));
  for (const [index, { disk, layers }] of sources.entries()) {
    const onProgress = (doing: string, percent: number): void => {
      options.onProgress(`${doing} disk ${disk.id} (${index + 1} of ${sources.length}): ${Math.floor(percent)} %`);
    };
    const name = names[index] ?? `disk${index}`;
    const files = await copyDisk(layers, { ...options, ...limits, folder: draft.folder, name, onProgress });
    copied.push({ disk, sources: layers.map(({ file }) => file), files });
  }
  await checkUnchanged(sources);
  await refuseLost(await store.read(set));
  const doubts = [...(await baseDoubts(manifest, [])).values()].map(({ why }) => why);
  const record = recordOf(manifest, copied, {
    ...{ target, format, flatten, verified: verify, copiedBy: draft.copier, doubts },
  });
  await draft.record(record);
  await draft.publish();
  return record;
}

async function checkCopyable(manifest: Manifest): Promise<void> {
  const { set, state, level, evidence, disks } = manifest;
  if (state !== 'cut') {
    const hints: Partial<Record<Manifest['state'], string>> = {
      creating: 'see "recover"',
      cutting: 'whether it was cut is not known: see "recover"',
      committing: 'its bases are being written to, and hold the cut no more',
      committed: 'its bases were written to since, and hold the cut no more',
      reverting: 'revert it again first',
      failed: 'it was never cut',
    };
    const hint = hints[state] === undefined ? '' : ` (${hints[state]})`;
    throw new UsageError('E_STATE_OF_SET', `${set} is ${state}${hint}: expected a set that was cut and not committed`);
  }
  if (level === 'none') throw baseLost(manifest, evidence.at(-1) ?? 'its level is none');
  if (disks.some(({ rebasing }) => rebasing === true)) {
    throw new UsageError('E_STATE_OF_SET', `an older set is being merged into what ${set} lies on: prune again first`);
  }
  await refuseLost(manifest);
}

async function refuseLost(manifest: Manifest): Promise<void> {
  const [why] = (await lostBases(manifest)).values();
  if (why !== undefined) throw baseLost(manifest, why);
}

function baseLost({ set }: Manifest, why: string): UsageError {
  return new UsageError('E_BASE_LOST', `${set} holds no cut that could be copied: ${why}`);
}

async function sourceOf(disk: ManifestDisk, limits: { deadline: Deadline; signal: AbortSignal }): Promise<Source> {
  const chain = await chainOf(disk, limits);
  const before = new Map<string, FileState>();
  for (const file of [...chain.layers.map((layer) => layer.file), ...chain.dataFiles]) {
    const state = await fileStateIfThere(file);
    if (state === undefined) throw new UsageError('E_NO_IMAGE', `disk ${disk.id}: ${file} cannot be found`);
    before.set(file, state);
  }
  return { ...chain, disk, before };
}

async function checkUnchanged(sources: readonly Source[]): Promise<void> {
  for (const { disk, before, layers } of sources) {
    for (const [file, state] of before) {
      // A device has no time of its own: its lock, and the comparison, speak for it.
      if (layers.some((layer) => layer.file === file && layer.isDevice)) continue;
      const now = await fileStateIfThere(file);
      if (now !== undefined && isSameState(now, state)) continue;
      throw new CutError(
        'E_BASE_LOST',
        `disk ${disk.id}: ${file} was changed while it was copied: the copy was dropped`,
      );
    }
  }
}

async function checkRoom(
  sources: readonly Source[],
  { target, flatten }: CopyOptions,
  limits: { deadline: Deadline; signal: AbortSignal },
): Promise<void> {
  let needed = 0;
  for (const { disk, layers } of sources) {
    try {
      needed += await neededBytes(layers, flatten, limits);
    } catch (cause) {
      if (!(cause instanceof UsageError) || cause.code !== 'E_IN_USE') throw cause;
      const message = `disk ${disk.id}: somebody may write to ${layers[0]?.file ?? ''}, so that it need not hold the cut`;
      throw new UsageError('E_IN_USE', message, { cause });
    }
  }
  const { bavail, bsize } = await statfs(dirname(target));
  const free = bavail * bsize;
  if (free >= needed) return;
  const mib = (bytes: number): string => `${Math.ceil(bytes / 1024 / 1024)} MiB`;
  const message = `no space for the copy in ${dirname(target)}: ${mib(free)} free, expected ${mib(needed)}`;
  throw new CutError('E_NO_SPACE', message, { facts: { free, needed } });
}
