// Whether the files that hold the state of a cut still do. A base takes no write after the cut: the VM's block graph tells
// while it runs, later what stat(2) says now beside what it said right after the cut. Sets of older versions have no such
// record: there the time of the last write is compared with the first thing known to be newer than the cut, what was
// written to an overlay.
import { stat } from 'node:fs/promises';
import { fileStateIfThere, fileStateOf } from '../images/file-state.js';
import { holdsData } from '../images/overlay-data.js';
import type { Layer } from './layers.js';
import type { Manifest, ManifestDisk } from './manifest.js';

/** Why a base no longer holds the state of the cut, for people. */
export type LostBases = ReadonlyMap<ManifestDisk, string>;

/**
 * The disks of a set that was cut, whose base holds the cut no longer. Without layers (the VM is shut off) only the files
 * are asked. A disk that was merged is not among them: that its cut is gone is in the record.
 */
export async function lostBases(manifest: Manifest, layers: readonly Layer[]): Promise<LostBases> {
  const lost = new Map<ManifestDisk, string>();
  const cutBefore = await firstWrites(manifest);
  for (const disk of manifest.disks) {
    // What `prune` does to the header of a base is no write of a VM.
    if (disk.pivoted === true || disk.merged || disk.rebasing === true) continue;
    const { file } = disk.base;
    const isRun = layers.some((layer) => layer.disk === disk && isWrittenTo(layer));
    const why = isRun
      ? `the VM was started from ${file} again: it no longer holds the state of the cut`
      : await whyNotAsCut(disk, cutBefore);
    if (why !== undefined) lost.set(disk, why);
  }
  return lost;
}

function isWrittenTo({ place, vmDisk, isOnBase }: Layer): boolean {
  return (place === 'unused' || place === 'loaded') && isOnBase && vmDisk?.readOnly === false;
}

async function whyNotAsCut(
  { base, below = [] }: ManifestDisk,
  cutBefore: ReadonlyMap<string, number>,
): Promise<string | undefined> {
  for (const { file, asCut } of [base, ...below]) {
    const now = await fileStateIfThere(file);
    if (now === undefined) return `${file} is not there any more`;
    if ((await stat(file)).isBlockDevice()) continue; // its times tell of its name in /dev
    const written = new Date(now.mtimeMs).toISOString();
    if (asCut === undefined) {
      const limitMs = cutBefore.get(now.device);
      if (limitMs === undefined || now.mtimeMs <= limitMs) continue;
      return `${file} was changed after the cut (${written}): it no longer holds the state of the cut`;
    }
    if (now.size === asCut.size && now.mtimeMs === asCut.mtimeMs) continue;
    return `${file} was changed after the cut (${written}): it no longer holds the state of the cut`;
  }
  return undefined;
}

// Per filesystem: another may be kept by another machine's clock.
async function firstWrites({ disks }: Manifest): Promise<ReadonlyMap<string, number>> {
  const first = new Map<string, number>();
  for (const { base, overlay } of disks) {
    if (base.asCut !== undefined || !(await holdsData(overlay.file))) continue;
    const { device, mtimeMs } = await fileStateOf(overlay.file);
    first.set(device, Math.min(mtimeMs, first.get(device) ?? Infinity));
  }
  return first;
}
