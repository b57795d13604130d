// The manifest of a set when a layer below its own is gone: what it names must hold its cut, before and after. Pure.
import type { FileState } from '../images/file-state.js';
import type { Manifest, ManifestDisk } from '../sets/manifest.js';

type Layer = ManifestDisk['base'];

export interface GoneLayer {
  /** The layer that is no more. */
  readonly layer: string;
  /** What holds all of it now. */
  readonly base: Layer;
  /** How files are now that were written to, in their headers or in whole, by the merge. */
  readonly states: ReadonlyMap<string, FileState | undefined>;
}

/** True if a base of it is about to be written to in its header, or to be gone, and it does not say so yet. */
export function needsRebasing({ disks }: Manifest, files: readonly string[]): boolean {
  return disks.some(({ base, merged, rebasing }) => !merged && rebasing !== true && files.includes(base.file));
}

export function asRebasing(manifest: Manifest, files: readonly string[]): Manifest {
  const disks = manifest.disks.map((disk) =>
    !disk.merged && files.includes(disk.base.file) ? { ...disk, rebasing: true as const } : disk,
  );
  return { ...manifest, disks };
}

/** Undefined if nothing of it changes. */
export function withoutLayer(manifest: Manifest, gone: GoneLayer): Manifest | undefined {
  const disks = manifest.disks.map((disk) => diskWithout(disk, gone));
  return disks.every((disk, index) => disk === manifest.disks[index]) ? undefined : { ...manifest, disks };
}

function diskWithout(disk: ManifestDisk, { layer, base, states }: GoneLayer): ManifestDisk {
  const knowsIt = disk.base.file === layer || (disk.below ?? []).some(({ file }) => file === layer);
  if (disk.merged || (disk.rebasing !== true && !knowsIt)) return disk;
  const isOnIt = disk.base.file === layer;
  const fresh = (named: Layer): Layer => {
    const { asCut: old, ...plain } = named;
    const asCut = states.has(named.file) ? states.get(named.file) : old;
    return asCut === undefined ? plain : { ...plain, asCut };
  };
  // What it was merged into is in `below` already, where that is known.
  const below = disk.below?.filter(({ file }) => file !== layer && !(isOnIt && file === base.file)).map(fresh);
  const told = {
    ...disk,
    base: fresh(isOnIt ? base : disk.base),
    ...(below === undefined ? {} : { below }),
    ...freshDataFiles(disk, states),
  };
  delete told.rebasing;
  return told;
}

function freshDataFiles(
  { dataFilesAsCut }: ManifestDisk,
  states: GoneLayer['states'],
): Pick<ManifestDisk, 'dataFilesAsCut'> {
  if (dataFilesAsCut === undefined) return {};
  const fresh = Object.entries(dataFilesAsCut).map(([file, old]) => [file, states.get(file) ?? old]);
  return { dataFilesAsCut: Object.fromEntries(fresh) as NonNullable<ManifestDisk['dataFilesAsCut']> };
}
