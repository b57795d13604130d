// Refuses a merge if somebody else needs the two layers that are to become one: a linked clone beside them, a set of
// another VM, a process other than the VM's QEMU. Whoever reads the lower layer would find other bytes, and whoever
// reads the upper one would lose it. The general gate (images/use.ts) does not know that the VM itself may have them
// open.
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { UsageError } from '../../errors.js';
import { readDisks } from '../../qmp/block-graph.js';
import type { Monitor } from '../../qmp/monitor.js';
import { sameFile } from '../images/same-file.js';
import { describeHolders, holdersOf } from '../images/image-file.js';
import { referencesOf } from '../images/references.js';
import { imageOf } from '../images/socket-owner.js';
import type { Manifest } from '../sets/manifest.js';
import type { MergeStep } from './merger.js';

/** Throws a UsageError that names them. `others`: the sets of all other VMs. */
export async function refuseOtherUsers(
  { base, layer, above }: MergeStep,
  monitors: readonly Monitor[],
  others: readonly Manifest[],
): Promise<void> {
  const folders = new Set([base.file, layer, above].map((file) => dirname(file)));
  const ownPids = await pidsOf(monitors);
  for (const [file, own] of [
    // Both lie on the base while the layer above is changed over.
    [base.file, [layer, above]],
    [layer, [above]],
  ] as const) {
    const refuse = (why: string): UsageError => new UsageError('E_IN_USE', `${file}: ${why}; nothing was pruned`);
    for (const image of await imagesOn(file, folders)) {
      const isOwn = await anySame(image, own);
      if (!isOwn) throw refuse(`${image} names it as its backing file`);
    }
    for (const { set, vm, state, disks } of others) {
      if (state === 'committed' || state === 'failed') continue;
      const layers = disks
        .filter(({ merged }) => !merged)
        .flatMap((disk) => [disk.base.file, disk.overlay.file, ...(disk.below ?? []).map((each) => each.file)]);
      if (await anySame(file, layers)) throw refuse(`snapshot set ${set} of ${vm.name} needs it`);
    }
    const foreign = (await holdersOf(file)).filter(({ pid }) => pid === undefined || !ownPids.has(pid));
    if (foreign.length > 0) throw refuse(`it is in use by ${describeHolders(foreign)}`);
  }
}

/** The VM's QEMU: who has its active layers open. */
async function pidsOf(monitors: readonly Monitor[]): Promise<ReadonlySet<number>> {
  const pids = new Set<number>();
  for (const monitor of monitors) {
    for (const { file, readOnly } of await readDisks(monitor)) {
      if (readOnly) continue;
      const image = (await imageOf(monitor.path, file)) ?? file;
      for (const { pid } of await holdersOf(image)) if (pid !== undefined) pids.add(pid);
    }
  }
  return pids;
}

async function imagesOn(file: string, folders: ReadonlySet<string>): Promise<string[]> {
  const found: string[] = [];
  for (const folder of folders) {
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const image = join(folder, entry.name);
      const backing = (await referencesOf(image).catch(() => undefined))?.backing ?? [];
      if (await anySame(file, backing)) found.push(image);
    }
  }
  return found;
}

async function anySame(file: string, others: readonly string[]): Promise<boolean> {
  for (const other of others) if (await sameFile(file, other)) return true;
  return false;
}
