// A filesystem that cannot freeze (vfat) is held all the same if nothing was written to its block device: read before
// the first FIFREEZE and after the last FITHAW, never between (Documentation/ABI/stable/sysfs-block, `stat`).
import { readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';

/** What the kernel counts of writes and discards, as one comparable text. */
export type WriteCount = string;

/**
 * Undefined if there is no counter to trust: I/O accounting may be off (queue/iostats), and then it stands still
 * whatever is written.
 */
export function readWriteCount(sysRoot: string, device: string): WriteCount | undefined {
  try {
    // Resolved: `..` of the link would not be the partition's disk.
    const directory = realpathSync.native(join(sysRoot, 'class/block', device.replaceAll('/', '!')));
    if (!countsIo(directory)) return undefined;
    const fields = readFileSync(join(directory, 'stat'), 'latin1').trim().split(/\s+/);
    // Writes done, sectors written; discards done, sectors discarded (from 4.18).
    const count = [fields[4], fields[6], fields[11] ?? '0', fields[13] ?? '0'];
    return count.every((field) => field !== undefined && /^\d+$/.test(field)) ? count.join(' ') : undefined;
  } catch {
    return undefined;
  }
}

// A partition has no queue of its own: it lies in its disk's directory.
function countsIo(directory: string): boolean {
  for (const queue of ['queue/iostats', '../queue/iostats']) {
    const setting = readOptional(join(directory, queue));
    if (setting !== undefined) return setting.trim() === '1';
  }
  return false;
}

function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
}
