// Finds the layers of a merge among a running VM's disks: by what they are, since the VM may have been started with
// other names of the same files (a linked folder, a relative path).
import { UsageError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import type { Monitor } from '../../qmp/monitor.js';
import { fileKey } from '../images/same-file.js';
import { imageKey } from '../images/socket-owner.js';
import { isForeign } from '../sets/layers.js';
import type { MergeStep } from './merger.js';

export interface StepDisk {
  readonly disk: VmDisk;
  /** The names of the files as the VM calls them. */
  readonly layer: string;
  readonly base: string;
}

/** The disk in whose chain the three lie on each other. */
export async function diskOfStep(
  monitor: Monitor,
  disks: readonly VmDisk[],
  { base, layer, above }: MergeStep,
): Promise<StepDisk | undefined> {
  const wanted = await Promise.all([above, layer, base.file].map(fileKey));
  for (const disk of disks) {
    const chain = [disk.file, ...disk.backingFiles];
    const keys = await keysOf(monitor, chain);
    const at = keys.findIndex((_key, index) => wanted.every((key, offset) => keys[index + offset] === key));
    const [, layerName, baseName] = at === -1 ? [] : chain.slice(at, at + 3);
    if (layerName !== undefined && baseName !== undefined) return { disk, layer: layerName, base: baseName };
  }
  return undefined;
}

/**
 * Throws a UsageError if a disk has a name of which nobody knows where it leads: after the merge nobody could tell whether
 * the VM has let go of the layer.
 */
export async function refuseUnknown(monitor: Monitor, disks: readonly VmDisk[]): Promise<void> {
  const names = disks.flatMap((disk) => [disk.file, ...disk.backingFiles]);
  const unknown = names[(await keysOf(monitor, names)).indexOf(undefined)];
  if (unknown === undefined) return;
  const message = `nothing was pruned: QEMU has ${unknown} open, and where that lies cannot be seen`;
  throw new UsageError('E_BLOCK_GRAPH', `${message}: shut the VM off, and prune then`);
}

/** True if a disk has the file in its chain, or in a name of which nobody knows where it leads. */
export async function isInChain(monitor: Monitor, disks: readonly VmDisk[], file: string): Promise<boolean> {
  const key = await fileKey(file);
  const keys = await keysOf(
    monitor,
    disks.flatMap((disk) => [disk.file, ...disk.backingFiles]),
  );
  return keys.some((each) => each === undefined || each === key);
}

async function keysOf(monitor: Monitor, names: readonly string[]): Promise<(string | undefined)[]> {
  return await Promise.all(
    names.map(async (name) => (isForeign.test(name) ? name : await imageKey(monitor.path, name))),
  );
}
