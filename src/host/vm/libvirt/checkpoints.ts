// The checkpoints of a domain: libvirt's list, which is what it keeps of them beside the images, and the dirty bitmaps of
// the same names in the images, which record. Either may be lost without the other: the list with a definition that was
// removed, a bitmap with a QEMU that was killed or an image that was put back. The bitmaps count; the list is made to
// agree. Every bitmap records by itself, so that any of them is taken away without the others. Specification: virsh(1),
// libvirt's "Checkpoint XML format". Seen on 9.0: an increment and a removal need the entry in the list, a removal is
// refused for an entry with a disk whose bitmap is not there, and it takes the bitmap from every layer below as well.
import { UnreachableError } from '../../../errors.js';
import type { VmDisk } from '../../../qmp/block-graph.js';
import { nodesOfFile, readNodes } from '../../../qmp/block-graph.js';
import { bitmapsIn, whyNotTrusted } from '../../../qmp/bitmaps.js';
import type { BlockNode, DirtyBitmap } from '../../../qmp/commands.js';
import type { Monitor } from '../../../qmp/monitor.js';
import type { Checkpoint } from '../hypervisor.js';
import { checkpointXml } from './backup-xml.js';
import { disksOfDomain } from './disks.js';
import type { Virsh } from './virsh.js';
import { xmlFiles } from './xml-files.js';

const ASK_MS = 30_000;
/** A bitmap of an image of many terabytes is many megabytes, and is read and written. */
const CHANGE_MS = 120_000;

/** Throws what Virsh.run does. */
export async function listedCheckpoints(virsh: Virsh): Promise<readonly string[]> {
  const text = await virsh.run('checkpoint-list', ['--name'], ASK_MS);
  return text.split('\n').filter((name) => name !== '');
}

/** The bitmaps on the disk's active layer, each with what belongs to it on the layers below. */
export async function bitmapsOf(monitor: Monitor, disk: VmDisk): Promise<readonly Checkpoint[]> {
  const nodes = await readNodes(monitor);
  const active = nodes.get(disk.node);
  const below = disk.below.map(({ file, format }) => {
    const [name] = nodesOfFile(nodes.values(), (image) => image === file, format);
    return name === undefined ? undefined : nodes.get(name);
  });
  return (active?.['dirty-bitmaps'] ?? []).flatMap((bitmap) => {
    const { name } = bitmap;
    if (name === undefined) return [];
    const parts = [bitmap, ...below.map((node) => bitmapOn(node, name))];
    return [{ name, dirtyBytes: parts.reduce((sum, part) => sum + (part?.count ?? 0), 0), why: whyBroken(parts) }];
  });
}

function bitmapOn(node: BlockNode | undefined, name: string): DirtyBitmap | undefined {
  return node?.['dirty-bitmaps'].find((bitmap) => bitmap.name === name);
}

/** Why libvirt would not take them for one record, for people. */
function whyBroken(parts: readonly (DirtyBitmap | undefined)[]): string | undefined {
  const end = parts.indexOf(undefined);
  const there = parts.filter((part) => part !== undefined);
  if (end !== -1 && there.length > end) return 'a layer below the image has no record of it, one further below has';
  const why = there.map(whyNotTrusted).find((each) => each !== undefined);
  return why ?? (there.every(({ persistent }) => persistent) ? undefined : 'it is not stored with the image');
}

/** A checkpoint, and the targets of the disks on which there is a bitmap of it. */
export interface KnownCheckpoint {
  readonly name: string;
  readonly targets: readonly string[];
  readonly others: readonly string[];
  readonly since?: Date | undefined;
}

/** Every checkpoint of which there is a bitmap on the active layer of a disk that libvirt knows. */
export async function foundCheckpoints(
  virsh: Virsh,
  monitor: Monitor,
  known: readonly string[],
): Promise<ReadonlyMap<string, FoundCheckpoint>> {
  const disks = (await disksOfDomain(virsh, monitor)).filter(({ device }) => known.includes(device));
  const nodes = await readNodes(monitor);
  const found = new Map<string, FoundCheckpoint>();
  for (const { device, node, below } of disks) {
    const lower = bitmapsIn(nodes, below);
    for (const { name } of nodes.get(node)?.['dirty-bitmaps'] ?? []) {
      if (name === undefined) continue;
      const { targets, layered } = found.get(name) ?? { targets: [], layered: [] };
      const on = [...targets, device];
      const inLayers = lower.includes(name) ? [...layered, device] : layered;
      found.set(name, { name, targets: on, others: without(known, on), layered: inLayers });
    }
  }
  return found;
}

export interface FoundCheckpoint extends KnownCheckpoint {
  /** Those of the targets below whose active layer there is more of it. */
  readonly layered: readonly string[];
}

export function without(all: readonly string[], some: readonly string[]): string[] {
  return all.filter((each) => !some.includes(each));
}

/** Lets libvirt list it; it may be listed already. Throws what Virsh.run does. */
export async function redefineCheckpoint(virsh: Virsh, checkpoint: KnownCheckpoint): Promise<void> {
  const since = checkpoint.since ?? new Date();
  await using xml = await xmlFiles(checkpointXml({ ...checkpoint, since }));
  await virsh.run('checkpoint-create', ['--xmlfile', xml.files[0] ?? '', '--redefine'], ASK_MS);
}

/**
 * Takes it away, from the images and from libvirt's list; but not from a disk below whose active layer there is more of it.
 * libvirt would write to the layers below, too: one may be the base of a snapshot set, which is to hold its cut, or another
 * VM's. When the layers are merged, or the disk is on one alone, it can be taken away. Throws what Virsh.run does.
 */
export async function removeCheckpoint(virsh: Virsh, found: FoundCheckpoint): Promise<void> {
  const { name, targets, others, layered } = found;
  const free = without(targets, layered);
  if (targets.length > 0 && free.length === 0) return;
  if (free.length > 0) await redefineCheckpoint(virsh, { name, targets: free, others: [...others, ...layered] });
  const words = ['--checkpointname', name, ...(free.length > 0 ? [] : ['--metadata'])];
  await virsh.run('checkpoint-delete', words, CHANGE_MS);
}

/** True if it says that the domain is shut off, or gone: there is nothing of it in QEMU. */
export function isShutOff(error: unknown): boolean {
  return error instanceof UnreachableError && error.code === 'E_MONITOR';
}
