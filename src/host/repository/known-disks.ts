// Which images are the disks of a VM that is shut off: by its newest run, and by its snapshot sets.
import { UsageError } from '../../errors.js';
import { currentImages } from '../sets/current-images.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { viewSet, type SetView } from '../sets/set-view.js';
import { wantedRuns, type Runs } from './runs.js';

export interface KnownDisk {
  /** As it was called when the VM ran. */
  readonly id: string;
  readonly serial: string | undefined;
  readonly file: string;
  readonly format: string;
}

export interface KnownDisks {
  readonly all: readonly KnownDisk[];
  /** The run by which it is known. */
  readonly knownBy: string;
}

/** Undefined if there is no run. Throws a UsageError if a set cannot be read, or does not know. */
export async function knownDisks(runs: Runs, store: ManifestStore): Promise<KnownDisks | undefined> {
  const newest = wantedRuns(runs).at(-1);
  if (newest === undefined) return undefined;
  const { manifests, unreadable } = await store.readAll();
  const broken = unreadable.find(({ empty }) => !empty);
  if (broken !== undefined) {
    throw new UsageError('E_UNREADABLE_SETS', `snapshot set ${broken.set} cannot be read: ${broken.reason}`);
  }
  const views: SetView[] = [];
  for (const each of manifests) views.push(await viewSet(each, { monitors: [], isRunning: false, isBusy: false }));
  const images = await currentImages(views);
  const all = newest.disks.map(({ id, serial, source }) => {
    const current = images.find((each) => each.id === id);
    if (current === undefined) return { id, serial, ...source };
    const { image, set } = current;
    if (image !== undefined) return { id, serial, file: image.file, format: image.format };
    throw new UsageError('E_NEWEST_UNKNOWN', `which image of disk ${id} is the newest is not known: see set ${set}`);
  });
  return { all, knownBy: newest.run };
}
