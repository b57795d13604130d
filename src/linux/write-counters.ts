// Reads what the kernel counts of writes to a block device (Documentation/ABI/stable/sysfs-block, `stat`). A filesystem
// that cannot freeze (vfat) is held all the same if nothing was written: read before the first FIFREEZE and after the
// last FITHAW, never between.
import { join } from 'node:path';
import { kernelName } from './block-tree.js';
import { readText, realPath } from './kernel-values.js';

/** What the kernel counts of writes and discards, as one comparable text. */
export type WriteCount = string;

/**
 * Undefined if there is no counter to trust: I/O accounting may be off (queue/iostats), and then it stands still
 * whatever is written. Never throws.
 */
export function readWriteCount(sysRoot: string, device: string): WriteCount | undefined {
  // Resolved: `..` of the link would not be the partition's disk.
  const folder = realPath(join(sysRoot, 'class/block', kernelName(device)));
  if (folder === undefined || !countsIo(folder)) return undefined;
  const fields = readText(join(folder, 'stat'))?.trim().split(/\s+/) ?? [];
  // Writes done, sectors written; discards done, sectors discarded (from 4.18).
  const count = [fields[4], fields[6], fields[11] ?? '0', fields[13] ?? '0'];
  return count.every((field) => field !== undefined && /^\d+$/.test(field)) ? count.join(' ') : undefined;
}

// A partition has no queue of its own, and lies in its disk's folder.
function countsIo(folder: string): boolean {
  const setting = readText(join(folder, 'queue/iostats')) ?? readText(join(folder, '../queue/iostats'));
  return setting?.trim() === '1';
}
