// Commits by the VM itself, while the guest writes on. Here is where each overlay is in the block graph, and what is
// known of a merge that an earlier call began. How a layer is merged is the hypervisor's: vm/plain-merge.ts,
// vm/libvirt/merge.ts.
import { stat } from 'node:fs/promises';
import { BridgeError } from '../../errors.js';
import { runQmp, type JobInfo } from '../../qmp/commands.js';
import type { JobProgress } from '../../qmp/jobs.js';
import { CLOCK_SLACK_MS, type CommitWay, type MergeLimits, type Step } from './way.js';
import { holdsData } from '../images/overlay-data.js';
import { layersOf, type Layer } from '../sets/layers.js';
import { mergeDoubt } from '../sets/base-state.js';
import type { Manifest } from '../sets/manifest.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import { refuseMigration } from '../vm/migration.js';

export function byRunningVm(hypervisor: Hypervisor): CommitWay {
  const one = async (manifest: Manifest, index: number): Promise<Merge> => {
    const merge = (await mergesOf(hypervisor, manifest))[index];
    if (merge === undefined) throw new Error(`no disk ${index}`);
    return merge;
  };
  return {
    monitors: [hypervisor],
    async check(consequence) {
      await refuseMigration(hypervisor, consequence);
    },
    steps: async (manifest) =>
      await Promise.all((await mergesOf(hypervisor, manifest)).map((merge) => stepOf(merge, manifest))),
    besides: (overlay) => ({ base: { mergedFrom: overlay, vmOf: overlay }, overlay: { vmOf: overlay } }),
    async merge(manifest, index, limits) {
      await mergeDisk(hypervisor, manifest, await one(manifest, index), index, limits);
    },
    async isOnOverlay(manifest, index) {
      return (await one(manifest, index)).place === 'active';
    },
    async close(manifest, index) {
      const { place, overlayNode, jobId, job } = await one(manifest, index);
      await hypervisor.forget(place === 'loaded' ? overlayNode : undefined, job === undefined ? undefined : jobId);
    },
  };
}

interface Merge extends Layer {
  readonly jobId: string;
  /** Ours, of a commit that ended before its job did, or before it dismissed it. */
  readonly job: JobInfo | undefined;
  /** A job merges the disk, or did, so that QEMU was not started anew since. */
  readonly hasJob: boolean;
}

async function mergesOf(hypervisor: Hypervisor, manifest: Manifest): Promise<Merge[]> {
  const jobs = await runQmp(hypervisor, 'query-jobs', {});
  const layers = await layersOf(hypervisor, manifest);
  return layers.map((layer, index) => {
    const jobId = `fsb-commit-${manifest.id}-${index}`;
    const job = jobs.find(({ id }) => id === jobId);
    // libvirt's: `commit-vda-libvirt-2-format`.
    const isLibvirts = ({ id }: JobInfo): boolean => id.startsWith(`commit-${layer.disk.device}-`);
    return { ...layer, jobId, job, hasJob: job !== undefined || jobs.some(isLibvirts) };
  });
}

async function stepOf(merge: Merge, manifest: Manifest): Promise<Step> {
  const { disk, place, vmDisk, baseNode } = merge;
  if (disk.merged) return { step: 'nothing' };
  if (isPivoted(merge)) return await withDoubt('remove', merge, manifest);
  if (place === 'active' && baseNode !== undefined && disk.pivoted !== true) {
    return await withDoubt('merge', merge, manifest);
  }
  const why = {
    active:
      disk.pivoted === true
        ? 'it was merged before, but the VM was started from it again: its base is newer'
        : `QEMU does not know its base ${disk.base.file}`,
    below: 'something newer lies on it',
    loaded: 'no disk of the VM uses it',
    unused: `the VM does not use it${vmDisk === undefined ? '' : `, but its base ${disk.base.file}`}`,
  }[place];
  return { step: 'cannot', why: `overlay ${disk.overlay.file} cannot be committed: ${why}` };
}

/** True if the guest writes to the base, which holds all of the overlay: by our own record, our job, or the graph. */
function isPivoted({ disk, place, isOnBase, job }: Merge): boolean {
  if (place !== 'loaded' && place !== 'unused') return false;
  if (disk.pivoted === true) return true;
  // QEMU ended when it was told to change over, and somebody started the VM from the base.
  const wasTold = disk.pivoting === true;
  const isDone = place === 'loaded' || (job?.status === 'concluded' && job.error === undefined);
  return (isDone || wasTold) && isOnBase;
}

async function withDoubt(step: 'merge' | 'remove', merge: Merge, manifest: Manifest): Promise<Step> {
  const doubt = await doubtOf(step, merge, manifest);
  return doubt === undefined ? { step } : { step, doubt };
}

// The record alone decides nothing: QEMU was to change over, and whether it did before it ended only the data can tell.
async function doubtOf(step: 'merge' | 'remove', merge: Merge, manifest: Manifest): Promise<string | undefined> {
  const { disk, place, hasJob } = merge;
  const base = disk.base.file;
  const overlay = disk.overlay.file;
  if (hasJob || place === 'loaded') return undefined;
  if (step === 'merge') {
    if (disk.pivoting !== true) return await mergeDoubt(manifest, disk);
    const begin = `QEMU ended while disk ${disk.id} changed over from its overlay, and the VM was started from ${overlay} since`;
    return `${begin}. If it had changed over, what it wrote to ${base} until then is lost when ${overlay} is merged into it`;
  }
  const writtenMs = await stat(overlay).then(
    ({ mtimeMs }) => mtimeMs,
    () => undefined,
  );
  if (writtenMs === undefined || !(await holdsData(overlay))) return undefined;
  const times = `${overlay} was written last at ${new Date(writtenMs).toISOString()}`;
  const rest = `If ${base} is newer than ${overlay}, commit the set: the overlay is removed then; else shut the VM off and start it from ${overlay}`;
  if (disk.pivoted !== true) {
    const begin = `QEMU ended while disk ${disk.id} changed over from its overlay, and the VM was started from ${base} since`;
    return `${begin}; ${times}. ${rest}`;
  }
  if (writtenMs <= Date.parse(disk.pivotedAt ?? manifest.changedAt) + CLOCK_SLACK_MS) return undefined;
  return `disk ${disk.id} was merged, but ${times}, after it was merged. ${rest}`;
}

async function mergeDisk(
  hypervisor: Hypervisor,
  manifest: Manifest,
  merge: Merge,
  index: number,
  { limitMs, speed, signal, onProgress, beforePivot }: MergeLimits,
): Promise<void> {
  const { jobId } = merge;
  const tell = ({ current, total, status }: JobProgress): void => {
    const percent = total === 0 ? 100 : Math.floor((100 * current) / total);
    onProgress(`${percent} % of ${Math.ceil(total / 1024 / 1024)} MiB, ${status}`);
  };
  await hypervisor.merge(merge, { jobId, limitMs, speed, signal, onProgress: tell, beforePivot });
  // A job that somebody cancelled when it was ready ends without an error, and without a merge.
  const place = (await layersOf(hypervisor, manifest))[index]?.place;
  if (place === 'loaded' || place === 'unused') return;
  await hypervisor.forget(undefined, jobId);
  throw new BridgeError('E_JOB', `job ${jobId} ended, but the VM still uses the overlay`);
}
