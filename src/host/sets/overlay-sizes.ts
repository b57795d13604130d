// Measures how large the overlays of a set are, and how fast they grew: what a VM writes after a cut takes space beside
// the base until the set is committed. Only stat(2) is asked, so that it makes no difference whether the VM is busy or
// gone.
import { stat } from 'node:fs/promises';
import { isErrno } from '../../errors.js';
import type { Manifest } from './manifest.js';

export interface OverlaySize {
  readonly set: string;
  /** The id of the guest's device. */
  readonly disk: string;
  readonly file: string;
  /** On the filesystem, holes not counted; undefined if the file is not there. */
  readonly allocatedBytes: number | undefined;
  /** The length of the file, holes counted. */
  readonly fileBytes: number | undefined;
  /** The size of the disk, in bytes: an overlay may become a little larger than that. */
  readonly virtualSize: number;
  /** Since the cut, or since it was last reverted to. */
  readonly ageMs: number;
  /** On the average of its age. */
  readonly bytesPerHour: number | undefined;
}

const HOUR_MS = 3_600_000;

/** Per disk whose overlay is still there to be merged; none for a set that was never cut, or holds nothing any more. */
export async function overlaySizes(manifest: Manifest, nowMs = Date.now()): Promise<OverlaySize[]> {
  const { set, state, createdAt, revertedAt, disks } = manifest;
  if (state === 'committed' || state === 'failed' || state === 'creating') return [];
  const ageMs = Math.max(0, nowMs - Date.parse(revertedAt ?? createdAt));
  const sizes: OverlaySize[] = [];
  for (const { id, overlay, virtualSize, merged } of disks) {
    if (merged) continue;
    const found = await sizeOf(overlay.file);
    // An overlay of a few seconds says nothing of an hour.
    const isOld = ageMs >= HOUR_MS / 60;
    sizes.push({
      set,
      disk: id,
      file: overlay.file,
      allocatedBytes: found?.allocated,
      fileBytes: found?.size,
      virtualSize,
      ageMs,
      bytesPerHour: found === undefined || !isOld ? undefined : Math.round((found.allocated * HOUR_MS) / ageMs),
    });
  }
  return sizes;
}

async function sizeOf(file: string): Promise<{ allocated: number; size: number } | undefined> {
  try {
    const { blocks, size } = await stat(file);
    // st_blocks counts 512 bytes, whatever the filesystem's own blocks are.
    return { allocated: blocks * 512, size };
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
