// Where a merge's three layers are in what a VM runs on, by what the files are: QEMU may spell them in another way.
import type { VmDisk } from '../../qmp/block-graph.js';
import { keyOrName } from '../images/socket-owner.js';
import type { MergeStep } from './merger.js';

/** The disk in whose chain they lie on each other. `path`: of the monitor that told of the disks. */
export async function diskOfStep(
  path: string,
  disks: readonly VmDisk[],
  { base, layer, above }: MergeStep,
): Promise<VmDisk | undefined> {
  const wanted = await keysOf(path, [above, layer, base.file]);
  for (const disk of disks) {
    const chain = await keysOf(path, [disk.file, ...disk.backingFiles]);
    if (chain.some((_, at) => wanted.every((key, offset) => chain[at + offset] === key))) return disk;
  }
  return undefined;
}

/** True if any of the disks uses the file, or something that lies on it. */
export async function isUsed(path: string, disks: readonly VmDisk[], file: string): Promise<boolean> {
  const [key = file] = await keysOf(path, [file]);
  const files = disks.flatMap((disk) => [disk.file, ...disk.backingFiles]);
  return (await keysOf(path, files)).includes(key);
}

async function keysOf(path: string, names: readonly string[]): Promise<string[]> {
  return await Promise.all(names.map((name) => keyOrName(path, name)));
}
