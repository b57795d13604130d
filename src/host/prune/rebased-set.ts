// Changes the manifest of a set when a layer below its own is gone: what it names must hold its cut, before and after.
// Pure.
import { defined } from '../../defined.js';
import type { FileState } from '../images/file-state.js';
import type { Manifest, ManifestDisk, ManifestLayer } from '../sets/manifest.js';

export interface GoneLayer {
  /** The layer that is no more. */
  readonly layer: string;
  /** The layer that holds all of it now. */
  readonly base: ManifestLayer;
  /** How files are now that were written to, in their headers or in whole, by the merge. */
  readonly states: ReadonlyMap<string, FileState | undefined>;
}

/** True if what holds its cut is about to be written to by the merge, or to be gone, and it does not say so yet. */
export function needsRebasing({ disks }: Manifest, files: readonly string[]): boolean {
  return disks.some((disk) => disk.rebasing !== true && liesOn(disk, files));
}

export function asRebasing(manifest: Manifest, files: readonly string[]): Manifest {
  const disks = manifest.disks.map((disk) => (liesOn(disk, files) ? { ...disk, rebasing: true as const } : disk));
  return { ...manifest, disks };
}

function liesOn({ base, below = [], merged }: ManifestDisk, files: readonly string[]): boolean {
  return !merged && [base, ...below].some(({ file }) => files.includes(file));
}

/** The manifest once the layer is gone; undefined if nothing of it changes. */
export function withoutLayer(manifest: Manifest, gone: GoneLayer): Manifest | undefined {
  const disks = manifest.disks.map((disk) => diskWithout(disk, gone));
  return disks.every((disk, index) => disk === manifest.disks[index]) ? undefined : { ...manifest, disks };
}

function diskWithout(disk: ManifestDisk, { layer, base, states }: GoneLayer): ManifestDisk {
  const knowsIt = disk.base.file === layer || (disk.below ?? []).some(({ file }) => file === layer);
  if (disk.merged || (disk.rebasing !== true && !knowsIt)) return disk;
  const isOnIt = disk.base.file === layer;
  const fresh = (named: ManifestLayer): ManifestLayer => {
    const { asCut: old, ...plain } = named;
    const asCut = states.has(named.file) ? renewed(old, states.get(named.file)) : old;
    return asCut === undefined ? plain : { ...plain, asCut };
  };
  // The layer it was merged into is in `below` already, where that is known.
  const below = disk.below?.filter(({ file }) => file !== layer && !(isOnIt && file === base.file)).map(fresh);
  const told = {
    ...disk,
    base: fresh(isOnIt ? asKnownTo(disk, base) : disk.base),
    ...defined({ below }),
    ...freshDataFiles(disk, states),
  };
  delete told.rebasing;
  return told;
}

/** The base as this disk knows it: a set that was cut later, since the boot for instance, may know more of it. */
function asKnownTo({ below = [] }: ManifestDisk, base: ManifestLayer): ManifestLayer {
  const asCut = below.find(({ file }) => file === base.file)?.asCut;
  return asCut === undefined ? base : { ...base, asCut };
}

/** The state after the merge. If nobody knew whether a device held the cut before it, nobody knows it afterwards. */
function renewed(old: FileState | undefined, now: FileState | undefined): FileState | undefined {
  if (now?.writes === undefined) return now;
  const { boot, disk } = now.writes;
  if (disk !== '' && old?.writes?.boot === boot && old.writes.disk === disk) return now;
  const { device, inode, size, mtimeMs } = now;
  return { device, inode, size, mtimeMs };
}

function freshDataFiles(
  { dataFilesAsCut }: ManifestDisk,
  states: GoneLayer['states'],
): Pick<ManifestDisk, 'dataFilesAsCut'> {
  if (dataFilesAsCut === undefined) return {};
  const fresh = Object.entries(dataFilesAsCut).map(([file, old]) => [file, renewed(old, states.get(file)) ?? old]);
  return { dataFilesAsCut: Object.fromEntries(fresh) as NonNullable<ManifestDisk['dataFilesAsCut']> };
}
