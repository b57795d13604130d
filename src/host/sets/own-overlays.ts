// Finds which of a set's overlays are there, and are still its own. Names of older versions held no set id, so that a
// file of the same name may have become another VM's; and images may be put back under their names (by rsync, from a
// backup) as other files than they were. A file that is not the set's own is never removed.
import { basename } from 'node:path';
import { exists } from '../images/durable-file.js';
import { fileStateOf } from '../images/file-state.js';
import { sameFile } from '../images/same-file.js';
import { holdsData } from '../images/overlay-data.js';
import { backingOf } from '../images/references.js';
import type { Manifest, ManifestDisk } from './manifest.js';

interface Overlays {
  readonly own: string[];
  /** Another's by now, or not known to be the set's. */
  readonly foreign: string[];
}

/** The overlays of disks that are not merged yet: a merged one's is gone. `all` are the sets of every VM. */
export async function overlaysThere(manifest: Manifest, all: readonly Manifest[]): Promise<Overlays> {
  const own: string[] = [];
  const foreign: string[] = [];
  for (const disk of manifest.disks) {
    const { file } = disk.overlay;
    if (disk.merged || !(await exists(file))) continue;
    ((await isOwn(disk, manifest, all)) ? own : foreign).push(file);
  }
  return { own, foreign };
}

async function isOwn(disk: ManifestDisk, { id }: Manifest, all: readonly Manifest[]): Promise<boolean> {
  const { asCut, file } = disk.overlay;
  const backing = await backingOf(file);
  const isOnBase = backing !== undefined && (await sameFile(backing, disk.base.file));
  if (asCut !== undefined) {
    // The number of a device may change when the machine boots; that of an inode does not.
    const { device, inode } = await fileStateOf(file);
    if (inode === asCut.inode && (device === asCut.device || isOnBase)) return true;
    // Put back in its place: its name is no other set's.
    if (!basename(file).includes(`-${id}`)) return false;
  }
  const others = all.filter((other) => other.id !== id).flatMap(({ disks }) => disks.filter(({ merged }) => !merged));
  for (const other of others) if (await sameFile(other.overlay.file, file)) return false;
  // One whose maker was killed while it made it names nothing yet.
  return isOnBase || (backing === undefined && (await isEmpty(file)));
}

async function isEmpty(file: string): Promise<boolean> {
  try {
    return !(await holdsData(file));
  } catch {
    // No qcow2: then it is none of ours.
    return false;
  }
}
