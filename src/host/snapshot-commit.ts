// Merges a set's overlays back into their bases while the guest writes on, and removes them. Each disk by itself:
// block-commit, ready, complete, dismiss, blockdev-del, delete. May be ended at any time and called again; it goes on
// from what the VM says, a job it started before included. Specification: QEMU qapi/block-core.json (block-commit), facts 4.1.
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { BridgeError, CutError, UsageError, describeError } from '../errors.js';
import type { QmpClient } from '../qmp/client.js';
import { runQmp } from '../qmp/commands.js';
import { dismissJob, findJob, waitForJob, type JobProgress } from '../qmp/jobs.js';
import { syncPath } from './durable-file.js';
import { describeHolders, holdersOf } from './image-file.js';
import { layersOf, type Layer } from './layers.js';
import type { Manifest } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { newerSets, settleState } from './set-state.js';

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
export async function commitSnapshot(monitor: QmpClient, options: CommitOptions): Promise<Manifest> {
  const { store, set, signal } = options;
  const all = await store.readAll();
  let manifest = await settleState(monitor, store, await store.read(set));
  if (manifest.state === 'committed') throw new UsageError('E_STATE_OF_SET', `${set} was committed before`);
  if (manifest.state === 'failed') throw new UsageError('E_STATE_OF_SET', `${set} was never cut: delete it`);
  const above = newerSets(manifest, all.manifests);
  if (above.length > 0) {
    throw new UsageError('E_NEWER_SETS', `newer snapshot sets lie on ${set}: commit ${above.join(', ')} first`);
  }
  const layers = await layersOf(monitor, manifest);
  for (const layer of layers) checkCommittable(layer);
  manifest = await store.write({ ...manifest, state: 'committing' });
  for (const [index, layer] of layers.entries()) {
    try {
      signal.throwIfAborted();
      await mergeDisk(monitor, layer, `fsb-commit-${manifest.id}-${index}`, options);
    } catch (cause) {
      if (signal.aborted)
        throw new CutError('E_INTERRUPTED', `interrupted: ${set} is merged in part; commit it again`, { cause });
      const what = `disk ${layer.disk.id}: its overlay could not be merged; the VM goes on with what it has`;
      throw new CutError('E_COMMIT', `${what}: ${describeError(cause)}`, { cause });
    }
    manifest = {
      ...manifest,
      disks: manifest.disks.map((disk, at) => (at === index ? { ...disk, merged: true } : disk)),
    };
    await store.write(manifest);
  }
  return await store.write({ ...manifest, state: 'committed' });
}

function checkCommittable({ disk, place, vmDisk, baseNode }: Layer): void {
  if (disk.merged || (place === 'active' && baseNode !== undefined)) return;
  // Merged by a commit that ended before it could say so.
  if (place === 'loaded' && vmDisk?.file === disk.base.file) return;
  const why = {
    active: `QEMU does not know its base ${disk.base.file}`,
    below: 'something newer lies on it',
    loaded: 'no disk of the VM uses it',
    unused: `the VM does not use it${vmDisk === undefined ? '' : `, but its base ${disk.base.file}`}`,
  }[place];
  throw new UsageError('E_NOT_ACTIVE', `disk ${disk.id}: overlay ${disk.overlay.file} cannot be committed: ${why}`);
}

async function mergeDisk(monitor: QmpClient, layer: Layer, jobId: string, options: CommitOptions): Promise<void> {
  const { disk, place, vmDisk, overlayNode, baseNode } = layer;
  if (place === 'active' && vmDisk !== undefined && overlayNode !== undefined && baseNode !== undefined) {
    if ((await findJob(monitor, jobId)) === undefined) {
      await runQmp(monitor, 'block-commit', {
        'job-id': jobId,
        device: vmDisk.rootNode,
        'top-node': overlayNode,
        'base-node': baseNode,
        'auto-dismiss': false,
        ...(options.speed === undefined ? {} : { speed: options.speed }),
      });
    }
    await finishJob(monitor, jobId, disk.id, options);
  }
  await dropOverlay(monitor, layer);
}

async function finishJob(monitor: QmpClient, jobId: string, name: string, options: CommitOptions): Promise<void> {
  const { limitMs, signal, onProgress } = options;
  const wait = {
    limitMs,
    signal,
    onProgress: ({ current, total, status }: JobProgress) => {
      const percent = total === 0 ? 100 : Math.floor((100 * current) / total);
      onProgress(`merging disk ${name}: ${percent} % of ${Math.ceil(total / 1024 / 1024)} MiB, ${status}`);
    },
  };
  try {
    const { status } = await waitForJob(monitor, jobId, ['ready', 'concluded'], wait);
    if (status === 'ready') {
      await runQmp(monitor, 'job-complete', { id: jobId });
      await waitForJob(monitor, jobId, ['concluded'], { limitMs });
    }
  } catch (error) {
    await giveUpJob(monitor, jobId);
    throw error;
  }
  await dismissJob(monitor, jobId);
}

// Cancelled, the commit leaves the VM on the overlay, as it was; what was copied already does no harm.
async function giveUpJob(monitor: QmpClient, jobId: string): Promise<void> {
  const job = await findJob(monitor, jobId);
  if (job === undefined) return;
  if (job.status !== 'concluded') {
    await runQmp(monitor, 'job-cancel', { id: jobId });
    try {
      await waitForJob(monitor, jobId, ['concluded'], { limitMs: 30_000 });
    } catch (error) {
      // A cancelled job ends with an error of its own; anything else is not ours to hide.
      if (!(error instanceof BridgeError) || error.code !== 'E_JOB') throw error;
    }
  }
  await dismissJob(monitor, jobId);
}

async function dropOverlay(monitor: QmpClient, { disk, overlayNode }: Layer): Promise<void> {
  if (overlayNode !== undefined) {
    try {
      await runQmp(monitor, 'blockdev-del', { 'node-name': overlayNode });
    } catch (error) {
      // A VM started from the overlay made the node by itself: it went with the job.
      if (await nodeStillThere(monitor, overlayNode)) throw error;
    }
  }
  const holders = await holdersOf(disk.overlay.file);
  if (holders.length > 0) {
    const who = describeHolders(holders);
    throw new CutError('E_IN_USE', `${disk.overlay.file} is merged, but still in use by ${who}: not deleted`);
  }
  await rm(disk.overlay.file, { force: true });
  await syncPath(dirname(disk.overlay.file));
}

async function nodeStillThere(monitor: QmpClient, node: string): Promise<boolean> {
  const nodes = await runQmp(monitor, 'query-named-block-nodes', { flat: true });
  return nodes.some(({ 'node-name': name }) => name === node);
}
