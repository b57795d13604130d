// Drafts the manifest of a set that is about to be made, with all that is known before the cut.
import { readlink } from 'node:fs/promises';
import { resolve } from 'node:path';
import { defined } from '../../defined.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { runQmp } from '../../qmp/commands.js';
import { PACKAGE_VERSION } from '../../version.js';
import type { CreatePlan } from './create-plan.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import { holdersOf } from '../images/image-file.js';
import type { Manifest } from '../sets/manifest.js';
import { folderOf } from '../sets/missing-images.js';
import { POINT_VERSION } from '../sets/point-in-time.js';
import { placeText } from '../vm/place.js';
import type { Overlay } from '../vm/overlay.js';
import { clip } from '../guest/clip.js';
import { requiredLevel, type Requirement } from '../guest/requirement.js';
import type { Vm } from '../vm/vm.js';

/** Everything known before the cut; its level is `none`. Throws what the monitor throws. */
export async function draftManifest(
  hypervisor: Hypervisor,
  plan: CreatePlan,
  overlays: readonly Overlay[],
  id: string,
  { vm, set, requirement }: { readonly vm: Vm; readonly set: string; readonly requirement: Requirement },
): Promise<Manifest> {
  const { name: qemuName } = await runQmp(hypervisor, 'query-name', {});
  const { UUID: uuid } = await runQmp(hypervisor, 'query-uuid', {});
  const { major, minor, micro, package: distribution } = hypervisor.version;
  const dataFiles = await Promise.all(overlays.map(({ disk }) => dataFilesOf(disk)));
  const folders = await Promise.all(overlays.map(({ file }) => folderOf(file)));
  const now = new Date().toISOString();
  return {
    format: 1,
    pointVersion: POINT_VERSION,
    set,
    id,
    state: 'creating',
    createdAt: now,
    changedAt: now,
    vm: {
      name: vm.name,
      qmp: placeText(vm.monitor),
      ...defined({ qga: vm.agent === undefined ? undefined : placeText(vm.agent), qemuName }),
      uuid,
      status: plan.status,
    },
    asked: requirement.asked,
    required: requiredLevel(requirement.asked, undefined),
    level: 'none',
    evidence: [],
    disks: overlays.map(({ disk, file, node, baseName }, index) => ({
      device: disk.device,
      id: disk.id,
      ...defined({ qdev: disk.qdev, serial: disk.serial, pciAddress: disk.pciAddress }),
      virtualSize: disk.virtualSize,
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
      ...(disk.encryption === undefined ? {} : { encryption: disk.encryption.format }),
      level: 'none' as const,
      evidence: [],
      merged: false,
    })),
    leftOut: [...plan.leftOut],
    timings: { steps: [], marks: {} },
    monitorLog: [],
    versions: {
      tool: PACKAGE_VERSION,
      node: process.versions.node,
      qemu: `${major}.${minor}.${micro}${distribution === '' ? '' : ` (${distribution})`}`,
      ...(plan.agent === undefined ? {} : { agent: clip(`${plan.agent.kind} ${plan.agent.version}`) }),
    },
  };
}

// QEMU takes a relative name from its own working directory; qemu-img would take it from the reader's.
async function dataFilesOf({ file, dataFiles }: VmDisk): Promise<readonly string[]> {
  if (dataFiles.every((each) => each.startsWith('/'))) return dataFiles;
  const pid = (await holdersOf(file)).find(({ who }) => who.startsWith('qemu-system'))?.pid;
  const folder = pid === undefined ? undefined : await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
  return folder === undefined ? dataFiles : dataFiles.map((each) => resolve(folder, each));
}
