// Which images the disks of a VM that is shut off are: by what this host knows of it, and by its snapshot sets. A run must
// agree that it is of these disks; it is not asked where they are.
import { UsageError } from '../../errors.js';
import { currentImages, type CurrentImage } from '../sets/current-images.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { viewSet, type SetView } from '../sets/set-view.js';
import { imageOf } from '../sets/disk-images.js';
import { readRecord, type DiskImage } from '../sets/vm-record.js';
import { imageFormats } from '../vm/disk-choice.js';
import { identityKey, type VmIdentity } from '../vm/identity.js';
import type { RunDisk } from './run-manifest.js';

export interface KnownDisk {
  /** As it was called when the VM ran. */
  readonly id: string;
  readonly serial: string | undefined;
  readonly file: string;
  readonly format: DiskImage['format'];
}

export interface KnowingHost {
  readonly stateDir: string;
  readonly identity: VmIdentity;
  readonly store: ManifestStore;
}

/**
 * Disks of a run as the VM would be started with them: on the images that this host knows, or on what the sets made since
 * put them on. Throws a UsageError if this host does not know them, if they are other disks than those of the run, or if a
 * set cannot be read, or does not know.
 */
export async function knownDisks(
  run: string,
  disks: readonly RunDisk[],
  { stateDir, identity, store }: KnowingHost,
): Promise<readonly KnownDisk[]> {
  const { manifests, unreadable } = await store.readAll();
  const broken = unreadable.find(({ empty }) => !empty);
  if (broken !== undefined) {
    throw new UsageError('E_UNREADABLE_SETS', `snapshot set ${broken.set} cannot be read: ${broken.reason}`);
  }
  const views: SetView[] = [];
  for (const each of manifests) views.push(await viewSet(each, { monitors: [], isRunning: false, isBusy: false }));
  const images = await currentImages(views);
  const known = (await readRecord(stateDir, identityKey(identity)))?.disks ?? [];
  const found: KnownDisk[] = [];
  for (const disk of disks) {
    const { id, serial } = disk;
    const { file, format } = await imageOf(disk, `run ${run}`, known, manifests);
    const current = images.find((each) => each.id === id);
    found.push({ id, serial, ...(current === undefined ? { file, format } : currentOf(current)) });
  }
  return found;
}

function currentOf({ id, image, set }: CurrentImage): Pick<KnownDisk, 'file' | 'format'> {
  const format = imageFormats.find((each) => each === image?.format);
  if (image !== undefined && format !== undefined) return { file: image.file, format };
  throw new UsageError('E_NEWEST_UNKNOWN', `which image of disk ${id} is the newest is not known: see set ${set}`);
}
