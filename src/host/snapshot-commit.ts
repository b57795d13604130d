// Merges a set's overlays back into their bases while the guest writes on, and removes them. Each disk by itself:
// merged, recorded, closed, file deleted. May be ended at any time and called again; it goes on
// from what the VM says, a job it started before included. How a layer is merged is the hypervisor's: plain-merge.ts,
// libvirt/merge.ts.
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { BridgeError, CutError, UsageError, describeError } from '../errors.js';
import { runQmp, type JobInfo } from '../qmp/commands.js';
import type { JobProgress } from '../qmp/jobs.js';
import type { Monitor } from '../qmp/monitor.js';
import { syncPath } from './images/durable-file.js';
import type { Hypervisor } from './vm/hypervisor.js';
import { describeHolders, holdersOf } from './images/image-file.js';
import { Journal } from './sets/journal.js';
import { layersOf, type Layer } from './sets/layers.js';
import type { Manifest, ManifestDisk } from './sets/manifest.js';
import type { ManifestStore } from './sets/manifest-store.js';
import { newerSets, settleState } from './sets/set-state.js';

export interface CommitOptions {
  readonly store: ManifestStore;
  readonly set: string;
  /** For each disk: until its overlay is merged, with all the guest writes meanwhile. */
  readonly limitMs: number;
  /** Bytes per second; without it, as fast as it goes. */
  readonly speed?: number;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

/**
 * Commits the set; its state is `committed` then, and the state of the cut is gone. Throws a UsageError if newer sets
 * lie on it or there is nothing to commit, a CutError if a disk could not be merged: the VM goes on writing to that
 * overlay, and commit may be called again.
 */
export async function commitSnapshot(hypervisor: Hypervisor, options: CommitOptions): Promise<Manifest> {
  const { store, set } = options;
  // Says that there is no such set, before a journal is begun.
  await store.read(set);
  const journal = await Journal.begin(store, set, 'commit');
  try {
    return await commit(hypervisor, options);
  } finally {
    await journal.end();
  }
}

async function commit(hypervisor: Hypervisor, options: CommitOptions): Promise<Manifest> {
  const { store, set, signal } = options;
  const all = await store.readAllOrRefuse();
  let manifest = await settleState([hypervisor], store, await store.read(set));
  checkState(manifest);
  const above = newerSets(manifest, all);
  if (above.length > 0) {
    throw new UsageError('E_NEWER_SETS', `newer snapshot sets lie on ${set}: commit ${above.join(', ')} first`);
  }
  const merges = await mergesOf(hypervisor, manifest);
  for (const merge of merges) checkCommittable(merge);
  const mark = async (index: number, what: Partial<ManifestDisk>): Promise<void> => {
    const disks = manifest.disks.map((disk, at) => (at === index ? { ...disk, ...what } : disk));
    manifest = await store.write({ ...manifest, disks });
  };
  manifest = await store.write({ ...manifest, state: 'committing' });
  for (const [index, merge] of merges.entries()) {
    if (merge.disk.merged) continue;
    try {
      signal.throwIfAborted();
      if (!isPivoted(merge)) {
        await mergeDisk(hypervisor, manifest, index, merge, options, () => mark(index, { pivoting: true }));
      }
      // Durable before its last traces in QEMU are removed: without them nobody could tell that it is merged.
      await mark(index, { pivoting: false, pivoted: true });
      await hypervisor.forget(merge.overlayNode, merge.jobId);
      await removeOverlay(merge);
    } catch (cause) {
      if (signal.aborted)
        throw new CutError('E_INTERRUPTED', `interrupted: ${set} is merged in part; commit it again`, { cause });
      const what = `disk ${merge.disk.id}: its overlay could not be merged; the VM goes on with what it has`;
      throw new CutError('E_COMMIT', `${what}: ${describeError(cause)}`, { cause });
    }
    await mark(index, { merged: true });
  }
  return await store.write({ ...manifest, state: 'committed' });
}

function checkState({ set, state }: Manifest): void {
  if (state === 'committed') throw new UsageError('E_STATE_OF_SET', `${set} was committed before`);
  if (state === 'failed') throw new UsageError('E_STATE_OF_SET', `${set} was never cut: delete it`);
  if (state === 'reverting') throw new UsageError('E_STATE_OF_SET', `${set} is reverted in part: revert it again`);
  if (state === 'deleting') throw new UsageError('E_STATE_OF_SET', `${set} is deleted in part: delete it again`);
}

/** What is left to be done for one disk. */
interface Merge extends Layer {
  readonly jobId: string;
  /** Of a commit that ended before its job did, or before it dismissed it. */
  readonly job: JobInfo | undefined;
}

async function mergesOf(monitor: Monitor, manifest: Manifest): Promise<Merge[]> {
  const jobs = await runQmp(monitor, 'query-jobs', {});
  const layers = await layersOf(monitor, manifest);
  return layers.map((layer, index) => {
    const jobId = `fsb-commit-${manifest.id}-${index}`;
    return { ...layer, jobId, job: jobs.find(({ id }) => id === jobId) };
  });
}

/** True if the guest writes to the base, which holds all of the overlay: by our own record, our job, or the graph. */
function isPivoted({ disk, place, isOnBase, job }: Merge): boolean {
  if (place !== 'loaded' && place !== 'unused') return false;
  if (disk.pivoted === true) return true;
  // QEMU was told to change over, and ended; somebody started the VM from the base, the newer one of the two.
  const wasTold = disk.pivoting === true;
  const isDone = place === 'loaded' || (job?.status === 'concluded' && job.error === undefined);
  return (isDone || wasTold) && isOnBase;
}

/**
 * Disks of which only a person can say that their base is the newer one: QEMU ended when the VM was to change over to
 * it, and the VM was started from it. `commitSnapshot` takes it for that, and removes the overlay.
 */
export async function doubtfulDisks(monitor: Monitor, manifest: Manifest): Promise<ManifestDisk[]> {
  return (await mergesOf(monitor, manifest))
    .filter(({ disk, place, isOnBase, job }) => {
      const isUnknown = place === 'unused' && isOnBase && job === undefined;
      return isUnknown && disk.pivoting === true && disk.pivoted !== true && !disk.merged;
    })
    .map(({ disk }) => disk);
}

function checkCommittable(merge: Merge): void {
  const { disk, place, vmDisk, baseNode } = merge;
  if (disk.merged || isPivoted(merge)) return;
  if (place === 'active' && baseNode !== undefined && disk.pivoted !== true) return;
  const why = {
    active:
      disk.pivoted === true
        ? 'it was merged before, but the VM was started from it again: its base is newer'
        : `QEMU does not know its base ${disk.base.file}`,
    below: 'something newer lies on it',
    loaded: 'no disk of the VM uses it',
    unused: `the VM does not use it${vmDisk === undefined ? '' : `, but its base ${disk.base.file}`}`,
  }[place];
  throw new UsageError('E_NOT_ACTIVE', `disk ${disk.id}: overlay ${disk.overlay.file} cannot be committed: ${why}`);
}

/** Throws with the VM on the overlay as before; the job, where there is one, is not forgotten when it returns. */
async function mergeDisk(
  hypervisor: Hypervisor,
  manifest: Manifest,
  index: number,
  merge: Merge,
  { limitMs, speed, signal, onProgress }: CommitOptions,
  beforePivot: () => Promise<void>,
): Promise<void> {
  const { disk, jobId } = merge;
  const tell = ({ current, total, status }: JobProgress): void => {
    const percent = total === 0 ? 100 : Math.floor((100 * current) / total);
    onProgress(`merging disk ${disk.id}: ${percent} % of ${Math.ceil(total / 1024 / 1024)} MiB, ${status}`);
  };
  await hypervisor.merge(merge, { jobId, limitMs, speed, signal, onProgress: tell, beforePivot });
  // A job that somebody cancelled when it was ready ends without an error, and without a merge.
  const place = (await layersOf(hypervisor, manifest))[index]?.place;
  if (place === 'loaded' || place === 'unused') return;
  await hypervisor.forget(undefined, jobId);
  throw new BridgeError('E_JOB', `job ${jobId} ended, but the VM still uses the overlay`);
}

async function removeOverlay({ disk }: Merge): Promise<void> {
  const { file } = disk.overlay;
  const holders = await holdersOf(file);
  if (holders.length > 0) {
    const who = describeHolders(holders);
    throw new CutError('E_IN_USE', `${file} is merged, but still in use by ${who}: not deleted`);
  }
  await rm(file, { force: true });
  await syncPath(dirname(file));
}
