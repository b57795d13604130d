// Commits by qemu-img, with the VM shut off: every file must be nobody's. Which of base and overlay is the newer one is
// decided by their contents, and by a person where these cannot tell.
import { stat } from 'node:fs/promises';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { diskAt } from './set-record.js';
import { CLOCK_SLACK_MS, type CommitWay, type Step } from './way.js';
import { exists } from '../images/durable-file.js';
import { sameFile } from '../images/same-file.js';
import { commitOffline, readsTheSame, type OfflineMerge } from '../images/offline-commit.js';
import { holdsData } from '../images/overlay-data.js';
import { backingOf } from '../images/references.js';
import { openNames, whySecret } from '../sets/disk-layers.js';
import { mergeDoubt } from '../sets/base-state.js';
import type { Manifest, ManifestDisk } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { putBackDefinition } from '../sets/put-back-definition.js';
import { openMonitors } from '../vm/monitors.js';
import type { Place } from '../vm/place.js';

export interface ShutOffVm {
  readonly store: ManifestStore;
  /** Where it may run: nobody may listen there. */
  readonly monitors: readonly Place[];
  readonly monitorTimeoutMs: number;
  /** How long two images that may be the same are compared. */
  readonly limitMs: number;
  readonly signal: AbortSignal;
}

export function byShutOffVm(vm: ShutOffVm): CommitWay {
  return {
    monitors: [],
    async check(consequence) {
      await using monitors = await openMonitors(vm.monitors, vm.monitorTimeoutMs, vm.store.identity);
      const [running] = monitors.open;
      if (running === undefined) return;
      const message = `the VM runs (monitor ${running.path} answers): ${consequence}; without --offline it merges by itself`;
      throw new UsageError('E_VM_RUNS', message);
    },
    async steps(manifest) {
      const steps: Step[] = [];
      for (const disk of manifest.disks) steps.push(await stepOf(disk, manifest, vm));
      return steps;
    },
    besides: (overlay) => ({ base: { mergedFrom: overlay }, overlay: {} }),
    async merge(manifest, index, { limitMs, speed, signal, onProgress }) {
      const disk = diskAt(manifest, index);
      await commitOffline(await mergeOf(disk), {
        limitMs,
        ...defined({ speed }),
        signal,
        onProgress: (percent) => {
          onProgress(`${Math.floor(percent)} %`);
        },
      });
    },
    isOnOverlay: () => Promise.resolve(false),
    async close(manifest, index) {
      const { overlay } = diskAt(manifest, index);
      // The definition changes before the file is gone: what libvirt is to start must be there.
      await putBackDefinition(vm.store, manifest, [overlay.file]);
    },
  };
}

async function mergeOf(disk: ManifestDisk): Promise<OfflineMerge> {
  return { base: disk.base.file, names: await openNames(disk) };
}

async function stepOf(disk: ManifestDisk, manifest: Manifest, vm: ShutOffVm): Promise<Step> {
  if (disk.merged) return { step: 'nothing' };
  const { id, pivoted, pivoting } = disk;
  const base = disk.base.file;
  const overlay = disk.overlay.file;
  if (!(await exists(overlay))) {
    return pivoted === true ? { step: 'remove' } : { step: 'cannot', why: `overlay ${overlay} is not there` };
  }
  const backing = await backingOf(overlay);
  if (backing === undefined || !(await sameFile(backing, base)) || !(await exists(base))) {
    return { step: 'cannot', why: `overlay ${overlay} lies on ${backing ?? 'nothing'}, expected ${base}` };
  }
  // Merged already, it only has to go.
  const why = pivoted === true ? undefined : await whyNotMerged(disk);
  if (why !== undefined) return { step: 'cannot', why };
  if (!(await holdsData(overlay))) return { step: pivoted === true ? 'remove' : 'merge' };
  const written = { base: (await stat(base)).mtimeMs, overlay: (await stat(overlay)).mtimeMs };
  const times = `${base} was written last at ${iso(written.base)}, ${overlay} at ${iso(written.overlay)}`;
  if (pivoted === true) {
    if (written.overlay <= Date.parse(disk.pivotedAt ?? manifest.changedAt) + CLOCK_SLACK_MS) return { step: 'remove' };
    return {
      step: 'remove',
      doubt: `disk ${id} was merged, but its overlay was written since; ${times}. The overlay is removed: if it holds what is needed, keep a copy`,
    };
  }
  if (pivoting === true) {
    // If both read the same, nothing is lost, whichever the VM wrote to last.
    if (await readsTheSame(await mergeOf(disk), vm)) return { step: 'remove' };
    const begin = `QEMU ended while disk ${id} changed over from its overlay; ${times}`;
    const rest = `If ${base} is the newer one, start the VM from it and commit without --offline; here ${overlay} is merged into it`;
    return { step: 'merge', doubt: `${begin}. ${rest}` };
  }
  const doubt = await mergeDoubt(manifest, disk);
  return doubt === undefined ? { step: 'merge' } : { step: 'merge', doubt: `${doubt}; ${times}` };
}

/** Why qemu-img could not open the images. */
async function whyNotMerged(disk: ManifestDisk): Promise<string | undefined> {
  const secret = await whySecret(disk);
  if (secret !== undefined) {
    return `${secret}, and only QEMU has its secret: commit while the VM runs, started from ${disk.overlay.file}`;
  }
  try {
    await openNames(disk);
    return undefined;
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
