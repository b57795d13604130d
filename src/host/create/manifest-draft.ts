// Drafts the manifest of a set that is about to be made, with all that is known before the cut.
import { readlink } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { VmDisk } from '../../qmp/block-graph.js';
import type { CreatePlan } from './create-plan.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import { holdersOf } from '../images/image-file.js';
import type { Manifest } from '../sets/manifest.js';
import { folderOf } from '../sets/missing-images.js';
import type { Overlay } from '../vm/overlay.js';
import { draftDisk, draftPoint, type PointOptions } from './point-draft.js';

/** Everything known before the cut; its level is `none`. Throws what the monitor throws. */
export async function draftManifest(
  hypervisor: Hypervisor,
  plan: CreatePlan,
  overlays: readonly Overlay[],
  id: string,
  { vm, set, requirement }: PointOptions & { readonly set: string },
): Promise<Manifest> {
  const dataFiles = await Promise.all(overlays.map(({ disk }) => dataFilesOf(disk)));
  const folders = await Promise.all(overlays.map(({ file }) => folderOf(file)));
  const point = await draftPoint(hypervisor, plan, { vm, requirement });
  const now = new Date().toISOString();
  return {
    format: 1,
    set,
    id,
    state: 'creating',
    createdAt: now,
    changedAt: now,
    ...point,
    disks: overlays.map(({ disk, file, node, baseName }, index) => ({
      ...draftDisk(disk),
      base: {
        node: disk.node,
        file: disk.file,
        format: disk.format,
        ...(baseName === disk.file ? {} : { name: baseName }),
      },
      overlay: { ...(hypervisor.keepsNodeNames ? { node } : {}), file, format: 'qcow2' },
      ...(folders[index] === undefined ? {} : { overlayFolder: folders[index] }),
      below: [...disk.below],
      ...(disk.dataFiles.length === 0 ? {} : { dataFiles: [...(dataFiles[index] ?? [])] }),
      merged: false,
    })),
  };
}

/**
 * The disk's data files, by whole paths where that can be known: QEMU takes a relative name from its own working directory,
 * qemu-img would take it from the reader's. Never throws.
 */
async function dataFilesOf({ file, dataFiles }: VmDisk): Promise<readonly string[]> {
  if (dataFiles.every((each) => each.startsWith('/'))) return dataFiles;
  const pid = (await holdersOf(file)).find(({ who }) => who.startsWith('qemu-system'))?.pid;
  const folder = pid === undefined ? undefined : await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
  return folder === undefined ? dataFiles : dataFiles.map((each) => resolve(folder, each));
}
