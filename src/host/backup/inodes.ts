// Tells one image from another that was put under its name.
import { stat } from 'node:fs/promises';
import type { VmDisk } from '../../qmp/block-graph.js';

/**
 * The inode of the disk's image, then of each that it lies on. Empty where it tells nothing: a device's is new with each boot,
 * and so is the number of its filesystem. Never throws.
 */
export async function inodesOf({ file, backingFiles }: Pick<VmDisk, 'file' | 'backingFiles'>): Promise<string[]> {
  const inodes: string[] = [];
  for (const image of [file, ...backingFiles]) inodes.push(await inodeOf(image));
  return inodes;
}

async function inodeOf(file: string): Promise<string> {
  const found = await stat(file, { bigint: true }).catch(() => undefined);
  return found?.isFile() === true ? String(found.ino) : '';
}
