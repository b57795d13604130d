// Reads what the kernel says of a snapshot (`dmsetup status`): Documentation/admin-guide/device-mapper/snapshot.rst and
// thin-provisioning.rst. Pure.
import type { SnapshotStatus } from '../providers/provider.js';

const SECTOR_BYTES = 512;

/** Of a classic snapshot: `0 204800 snapshot 16/40960 16`, or a word that says that it is lost. */
export function classicStatus(line: string): SnapshotStatus {
  const [, used, total] = / snapshot (\d+)\/(\d+)/.exec(line) ?? [];
  // `Invalid`, `Overflow`, `Merge failed`, `Unknown`: nothing of that can be read any more.
  if (used === undefined || total === undefined) return { state: 'lost' };
  return { state: 'whole', usedBytes: Number(used) * SECTOR_BYTES, totalBytes: Number(total) * SECTOR_BYTES };
}

/** Of a thin pool: `0 409600 thin-pool 1 11/1024 55/3200 - rw ...`. It is as full as its data or its metadata. */
export function poolStatus(line: string): SnapshotStatus {
  const [, sectors, metaUsed, metaTotal, used, total, rest = ''] =
    /\d+ (\d+) thin-pool \d+ (\d+)\/(\d+) (\d+)\/(\d+) (.*)/.exec(line) ?? [];
  if (sectors === undefined) return { state: 'lost' };
  const fullPart = Math.max(Number(used) / Number(total), Number(metaUsed) / Number(metaTotal));
  const totalBytes = Number(sectors) * SECTOR_BYTES;
  // A pool that ran full answers reads of what was there: what is lost then is what its origins write.
  const isBroken = /\b(Fail|Error)\b/.test(rest);
  return {
    state: isBroken ? 'lost' : 'whole',
    usedBytes: Math.round(fullPart * totalBytes),
    totalBytes,
  };
}
