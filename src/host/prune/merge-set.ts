// Merges the overlay of one set, on which newer sets lie, into its base, disk by disk, and tells the newer sets'
// manifests of it. At every moment what those name holds their cut: until `change` it is the layer, which keeps its
// clusters; from then on the base does, too, which holds them all. The layer is removed when nothing names it any more.
// A tool that is killed at any instant leaves a set `committing`, `pruning`, and another prune goes on from what
// headers and graph say.
import { CutError, UsageError, describeError } from '../../errors.js';
import { removeFiles } from '../images/durable-file.js';
import { backingOf, whyNotDropped } from '../images/references.js';
import { whyInUse } from '../images/use.js';
import { fileStateIfThere, type FileState } from '../images/file-state.js';
import { sameFile } from '../images/same-file.js';
import { witnessesFor } from '../sets/claims.js';
import { lostBases } from '../sets/base-state.js';
import { baseNameOf, namedBase } from '../sets/disk-layers.js';
import type { Manifest, ManifestDisk } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { holdsLess, recordOf, viewSet } from '../sets/set-view.js';
import type { MergeLimits, Merger, MergeStep } from './merger.js';
import { refuseOtherUsers } from './other-users.js';
import { asRebasing, needsRebasing, withoutLayer } from './rebased-set.js';

export interface MergeSetOptions extends Omit<MergeLimits, 'onProgress'> {
  readonly store: ManifestStore;
  readonly stateDir: string;
  readonly merger: Merger;
  /** All sets of the VM that hold a cut, or are being pruned, by name; kept up to date. */
  readonly live: Map<string, Manifest>;
  /** The sets of all other VMs. */
  readonly others: readonly Manifest[];
  readonly onProgress: (text: string) => void;
}

/**
 * Merges all of its disks; the set is `committed` then. Throws a UsageError if one cannot be merged (nothing was changed,
 * unless an earlier prune had begun), a CutError if it failed, was interrupted, or the VM is being migrated: prune again.
 */
export async function mergeSet(set: string, options: MergeSetOptions): Promise<void> {
  const { store, live, signal } = options;
  const manifest = setOf(live, set);
  await checkMergeable(manifest, options);
  await recordLosses(set, options);
  live.set(set, await store.write({ ...manifest, state: 'committing', pruning: true }));
  for (const [index, disk] of manifest.disks.entries()) {
    if (disk.merged) continue;
    try {
      signal.throwIfAborted();
      await mergeDisk(set, index, options);
    } catch (cause) {
      if (signal.aborted)
        throw new CutError('E_INTERRUPTED', `interrupted: ${set} is merged in part; prune again`, { cause });
      const what = `disk ${disk.id}: the overlay of ${set} could not be merged; the VM and the newer sets go on as before`;
      throw new CutError('E_PRUNE', `${what}: ${describeError(cause)}`, { cause });
    }
  }
  const merged = { ...setOf(live, set), state: 'committed' as const };
  delete merged.pruning;
  live.set(set, await store.write(merged));
}

async function checkMergeable(manifest: Manifest, options: MergeSetOptions): Promise<void> {
  const { set, state, disks } = manifest;
  // A base that an earlier prune has written to was not written to by a VM.
  if (state === 'cut') await refuseLost(manifest);
  for (const [index, disk] of disks.entries()) {
    if (disk.merged || disk.pivoted === true) continue;
    const step = await stepOf(manifest, index, options.live);
    if (step === undefined) {
      if (disk.pivoting === true) continue;
      const message = `nothing was pruned: no newer set lies on disk ${disk.id} of ${set}: the VM writes to its overlay`;
      throw new UsageError('E_NOT_BELOW', `${message}, which only "snapshot commit" merges, when ${set} is the newest`);
    }
    const why = await whyNotDropped(step.layer);
    if (why !== undefined)
      throw new UsageError('E_INTERNAL_SNAPSHOTS', `${set} was not pruned: disk ${disk.id}: ${why}`);
    await refuseOtherUsers(step, options.merger.monitors, options.others);
    if (isShutOff(options.merger) || !(await isChanged(step))) await options.merger.check(step);
  }
}

async function refuseLost(manifest: Manifest): Promise<void> {
  const { set, level, evidence } = manifest;
  const [lost] = (await lostBases(manifest)).values();
  const why = lost ?? (level === 'none' ? ['its level is none', ...evidence].join(', ') : undefined);
  if (why === undefined) return;
  throw new UsageError('E_BASE_LOST', `${set} was not pruned: ${why}; what is to be kept only you can say`);
}

/**
 * The merge makes the states anew by which a base is known to have been written to: what they tell now is written down.
 */
async function recordLosses(set: string, { live, store }: MergeSetOptions): Promise<void> {
  for (const [name, other] of live) {
    if (name === set || other.state !== 'cut') continue;
    const view = await viewSet(other, { monitors: [], isRunning: true, isBusy: false });
    if (holdsLess(view)) live.set(name, await store.write(recordOf(view)));
  }
}

async function mergeDisk(set: string, index: number, options: MergeSetOptions): Promise<void> {
  const { merger, live } = options;
  const disk = diskOf(live, set, index);
  const jobId = jobIdOf(setOf(live, set), index);
  const gone = { jobId, base: disk.base, baseName: '', disk, layer: disk.overlay.file, above: '' };
  if (disk.pivoted !== true) {
    const step = await stepOf(setOf(live, set), index, live);
    if (step !== undefined) await changeOver(set, index, step, options);
    await merger.forget(step ?? gone);
    await tellNewerSets(set, disk, options);
    await mark(set, index, { pivoting: false, pivoted: true }, options);
  } else await merger.forget(gone);
  const { file } = disk.overlay;
  const use = await whyInUse([file], await witnessesFor(options.stateDir, setOf(live, set), merger.monitors));
  if (use !== undefined) throw new CutError('E_IN_USE', `${file} is merged, but not removed: ${use.why}`);
  await removeFiles([file]);
  await mark(set, index, { merged: true }, options);
}

/**
 * Each that lies on the layer, or farther above: from then on it names what holds the layer's state, as that is now.
 */
async function tellNewerSets(set: string, merged: ManifestDisk, options: MergeSetOptions): Promise<void> {
  const { live, store } = options;
  const layer = merged.overlay.file;
  const base = { ...merged.base, ...(await namedBase(merged)) };
  const states = new Map<string, FileState | undefined>();
  // If the base has a data file, the merged data is in there.
  for (const file of [base.file, ...(merged.dataFiles ?? [])]) states.set(file, await fileStateIfThere(file));
  // Oldest first: what is the base of one lies below the base of the next.
  for (const [name, other] of live) {
    if (name === set) continue;
    const told = withoutLayer(other, { layer, base, states });
    if (told !== undefined) live.set(name, await store.write(told));
    for (const each of (told ?? other).disks) {
      // An earlier prune told it: what was written to its base since is no work of the merge.
      if (told === undefined) states.set(each.base.file, each.base.asCut);
      // The layer above, whose header names the base now.
      if (each.base.file === base.file) states.set(each.overlay.file, await fileStateIfThere(each.overlay.file));
    }
  }
}

/** The layer above names the base when it returns, which holds all of the layer; as far as that is not so already. */
async function changeOver(set: string, index: number, step: MergeStep, options: MergeSetOptions): Promise<void> {
  const { merger, live, store, onProgress } = options;
  const { id } = diskOf(live, set, index);
  const limits: MergeLimits = {
    ...options,
    onProgress: (percent) => {
      onProgress(`merging disk ${id} of ${set}: ${Math.floor(percent)} %`);
    },
  };
  // Shut off, it is copied again in any case: nobody knows whether who changed it had written all of it back.
  if (isShutOff(merger) || !(await isChanged(step))) {
    // Marked before a header is written: who looks at the times meanwhile must know why they are new.
    for (const [name, other] of live) {
      const files = [step.layer, step.above];
      if (name !== set && needsRebasing(other, files)) live.set(name, await store.write(asRebasing(other, files)));
    }
    await merger.copy(step, limits);
    await mark(set, index, { pivoting: true }, options);
    await merger.change(step, limits);
  }
  if (await isChanged(step)) return;
  const message = `${step.above} names ${(await backingOf(step.above)) ?? 'nothing'}, expected ${step.base.file}`;
  throw new CutError('E_PRUNE', `${message}: shut the VM off, and prune again`);
}

function isShutOff({ monitors }: Merger): boolean {
  return monitors.length === 0;
}

async function isChanged({ above, base }: MergeStep): Promise<boolean> {
  const named = await backingOf(above);
  return named !== undefined && (await sameFile(named, base.file));
}

/**
 * The merge of a disk; undefined if no newer set names the overlay: they have been told, or there are none. Throws if
 * several do.
 */
async function stepOf(
  manifest: Manifest,
  index: number,
  live: ReadonlyMap<string, Manifest>,
): Promise<MergeStep | undefined> {
  const disk = manifest.disks[index];
  if (disk === undefined) throw new Error(`no disk ${index} in ${manifest.set}`);
  const layer = disk.overlay.file;
  const lying = [...live.values()]
    .filter(({ id }) => id !== manifest.id)
    .flatMap(({ set, disks }) => disks.map((each) => ({ set, ...each })))
    .filter(({ merged, base }) => !merged && base.file === layer);
  const [above, another] = lying;
  if (above === undefined) return undefined;
  if (another !== undefined) {
    const message = `nothing was pruned: ${above.set} and ${another.set} both lie on ${layer}`;
    throw new UsageError('E_IN_USE', `${message}: delete one of them first`);
  }
  const { base } = disk;
  return {
    jobId: jobIdOf(manifest, index),
    base,
    baseName: await baseNameOf(disk),
    disk,
    layer,
    above: above.overlay.file,
  };
}

/** The name that commit gives its jobs, too: a set is merged by one of the two, and `recover` knows the job's set. */
function jobIdOf({ id }: Manifest, index: number): string {
  return `fsb-commit-${id}-${index}`;
}

async function mark(
  set: string,
  index: number,
  what: Partial<ManifestDisk>,
  { live, store }: MergeSetOptions,
): Promise<void> {
  const manifest = setOf(live, set);
  const disks = manifest.disks.map((disk, at) => (at === index ? { ...disk, ...what } : disk));
  live.set(set, await store.write({ ...manifest, disks }));
}

function setOf(live: ReadonlyMap<string, Manifest>, set: string): Manifest {
  const manifest = live.get(set);
  if (manifest === undefined) throw new Error(`${set} is not among the sets`);
  return manifest;
}

function diskOf(live: ReadonlyMap<string, Manifest>, set: string, index: number): ManifestDisk {
  const disk = setOf(live, set).disks[index];
  if (disk === undefined) throw new Error(`no disk ${index} in ${set}`);
  return disk;
}
