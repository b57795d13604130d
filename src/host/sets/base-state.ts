// Tells whether the files that hold the state of a cut still do. A base takes no write after the cut. While the VM
// runs, its block graph tells; later stat(2) does, beside what it said right after the cut; and for a block device,
// which keeps no time of its writes, what the kernel has counted. Sets of older versions have no such record: there the
// time of the last write is compared with the first thing known to be newer than the cut, the data of an overlay.
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { fileStateIfThere, type FileState } from '../images/file-state.js';
import { holdsData } from '../images/overlay-data.js';
import type { Layer } from './layers.js';
import type { Manifest, ManifestDisk } from './manifest.js';

export interface BaseDoubt {
  /**
   * lost     it was written to: the cut is gone for good
   * missing  a file of it is not there now: it may be gone, or on a filesystem that is not mounted
   * unknown  it is there, and nothing tells whether it was written to
   */
  readonly is: 'lost' | 'missing' | 'unknown';
  /** For people. */
  readonly why: string;
}

/**
 * The disks of a set that was cut, of which it is not known that their base holds the cut, or is known that it does not.
 * Without layers (the VM is shut off) only the files are asked. A disk that was merged is not among them: that its cut is
 * gone is in the record.
 */
export async function baseDoubts(
  manifest: Manifest,
  layers: readonly Layer[],
): Promise<ReadonlyMap<ManifestDisk, BaseDoubt>> {
  const doubts = new Map<ManifestDisk, BaseDoubt>();
  const cutBefore = await firstWrites(manifest);
  for (const disk of manifest.disks) {
    // When `prune` writes to the header of a base, no VM has written to it.
    if (disk.pivoted === true || disk.merged || disk.rebasing === true) continue;
    const { file } = disk.base;
    const isRun = layers.some((layer) => layer.disk === disk && isWrittenTo(layer));
    const doubt: BaseDoubt | undefined = isRun
      ? { is: 'lost', why: `the VM was started from ${file} again: it no longer holds the state of the cut` }
      : disk.lost !== undefined
        ? { is: 'lost', why: disk.lost }
        : await whyNotAsCut(disk, cutBefore);
    if (doubt !== undefined) doubts.set(disk, doubt);
  }
  return doubts;
}

/** The disks whose base does not hold the cut, or is not there; each with its reason. */
export async function lostBases(manifest: Manifest): Promise<ReadonlyMap<ManifestDisk, string>> {
  const doubts = [...(await baseDoubts(manifest, []))].filter(([, { is }]) => is !== 'unknown');
  return new Map(doubts.map(([disk, { why }]) => [disk, why]));
}

/** Why the overlay of the disk must not be merged into its base unless a person says so; undefined if it may be. */
export async function mergeDoubt(manifest: Manifest, disk: ManifestDisk): Promise<string | undefined> {
  // The merge itself has written to it; an older version did not say of which disks it had begun that.
  const isUnmarked = manifest.state === 'committing' && manifest.disks.every(({ merge }) => merge === undefined);
  if (disk.merge === 'begun' || isUnmarked) return undefined;
  const doubt = (await baseDoubts(manifest, [])).get(disk);
  if (doubt === undefined || doubt.is === 'missing') return undefined;
  const { base, overlay } = disk;
  const was = doubt.is === 'lost' ? 'was written' : 'may have been written';
  return `disk ${disk.id}: ${doubt.why}. ${overlay.file} is merged into ${base.file}, over what ${was} there`;
}

function isWrittenTo({ place, vmDisk, isOnBase }: Layer): boolean {
  return (place === 'unused' || place === 'loaded') && isOnBase && vmDisk?.readOnly === false;
}

interface RecordedFile {
  readonly file: string;
  readonly asCut?: FileState | undefined;
}

function recordedFiles({ base, below = [], dataFiles = [], dataFilesAsCut = {} }: ManifestDisk): RecordedFile[] {
  // Where a relative name leads is not known.
  const ofData = dataFiles.filter(isAbsolute).map((file) => ({ file, asCut: dataFilesAsCut[file] }));
  return [base, ...below, ...ofData];
}

async function whyNotAsCut(disk: ManifestDisk, cutBefore: ReadonlyMap<string, number>): Promise<BaseDoubt | undefined> {
  let unknown: BaseDoubt | undefined;
  for (const { file, asCut } of recordedFiles(disk)) {
    const now = await fileStateIfThere(file);
    if (now === undefined) return { is: 'missing', why: `${file} is not there: it was removed, or is not mounted` };
    if ((await stat(file)).isBlockDevice()) {
      const doubt = deviceDoubt(file, now, asCut);
      if (doubt?.is === 'lost') return doubt;
      unknown ??= doubt;
      continue;
    }
    const written = new Date(now.mtimeMs).toISOString();
    const lost = {
      is: 'lost',
      why: `${file} was changed after the cut (${written}): it no longer holds the state of the cut`,
    } as const;
    if (asCut === undefined) {
      const limitMs = cutBefore.get(now.device);
      if (limitMs === undefined || now.mtimeMs <= limitMs) continue;
      return lost;
    }
    if (now.size === asCut.size && now.mtimeMs === asCut.mtimeMs) continue;
    return lost;
  }
  return unknown;
}

function deviceDoubt(file: string, now: FileState, asCut: FileState | undefined): BaseDoubt | undefined {
  const [counted, before] = [now.writes, asCut?.writes];
  const unknown = `whether ${file} was written to since the cut, and still holds it, cannot be known`;
  if (before === undefined) return { is: 'unknown', why: `${unknown}: its writes since then were not all counted` };
  if (counted === undefined) return { is: 'unknown', why: `${unknown}: its writes are not counted` };
  if (counted.boot !== before.boot || counted.disk !== before.disk) {
    return { is: 'unknown', why: `${unknown}: the machine was booted, or the device made anew, since` };
  }
  if (counted.sectors === before.sectors) return undefined;
  if (counted.disk === '') return { is: 'unknown', why: `${unknown}: it was written to, or made anew` };
  return { is: 'lost', why: `${file} was written to after the cut: it no longer holds the state of the cut` };
}

// Per filesystem: another may be kept by another machine's clock.
async function firstWrites({ disks }: Manifest): Promise<ReadonlyMap<string, number>> {
  const first = new Map<string, number>();
  for (const { base, overlay } of disks) {
    if (base.asCut !== undefined) continue;
    const found = await fileStateIfThere(overlay.file);
    if (found === undefined || !(await holdsData(overlay.file))) continue;
    first.set(found.device, Math.min(found.mtimeMs, first.get(found.device) ?? Infinity));
  }
  return first;
}
