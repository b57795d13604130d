// Which images the disks of a VM that is shut off are: by its newest runs, and by its snapshot sets.
import { UsageError } from '../../errors.js';
import { currentImages } from '../sets/current-images.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { viewSet, type SetView } from '../sets/set-view.js';
import type { RunDisk } from './run-manifest.js';
import { wantedRuns, type Runs } from './runs.js';

export interface KnownDisk {
  /** As it was called when the VM ran. */
  readonly id: string;
  readonly serial: string | undefined;
  readonly file: string;
  readonly format: string;
}

/** The disk as the newest run has it that holds it; else itself. */
export function newestOf(runs: Runs, disk: RunDisk): RunDisk {
  const all = wantedRuns(runs).toReversed();
  return all.flatMap(({ disks }) => disks).find(({ id }) => id === disk.id) ?? disk;
}

/**
 * The disks as the VM would be started with them: those of a run, on what the sets made since put them on. Throws a
 * UsageError if a set cannot be read, or does not know.
 */
export async function knownDisks(disks: readonly RunDisk[], store: ManifestStore): Promise<readonly KnownDisk[]> {
  const { manifests, unreadable } = await store.readAll();
  const broken = unreadable.find(({ empty }) => !empty);
  if (broken !== undefined) {
    throw new UsageError('E_UNREADABLE_SETS', `snapshot set ${broken.set} cannot be read: ${broken.reason}`);
  }
  const views: SetView[] = [];
  for (const each of manifests) views.push(await viewSet(each, { monitors: [], isRunning: false, isBusy: false }));
  const images = await currentImages(views);
  return disks.map(({ id, serial, source }) => {
    const current = images.find((each) => each.id === id);
    if (current === undefined) return { id, serial, ...source };
    const { image, set } = current;
    if (image !== undefined) return { id, serial, file: image.file, format: image.format };
    throw new UsageError('E_NEWEST_UNKNOWN', `which image of disk ${id} is the newest is not known: see set ${set}`);
  });
}
