// Finds images of a set that are not there. A file is known to be removed only if its folder is the one it was made in:
// a filesystem that is not mounted (at boot, a file server, a disk that was unplugged) looks like one whose files are
// gone, and what is taken for gone is lost to its user.
import { stat } from 'node:fs/promises';
import { dirname, isAbsolute } from 'node:path';
import { isErrno } from '../../errors.js';
import { exists } from '../images/durable-file.js';
import type { Manifest, ManifestDisk } from './manifest.js';

/** Tells the folder of a file from another one that has its name by now. */
export interface FolderIdentity {
  readonly device: string;
  readonly inode: string;
}

/** The state, or undefined if the file is not there. Throws what stat(2) does otherwise. */
export async function folderOf(file: string): Promise<FolderIdentity | undefined> {
  try {
    const { dev, ino } = await stat(dirname(file), { bigint: true });
    return { device: String(dev), inode: String(ino) };
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** Files that are not there of a disk that is not merged: those that hold its cut, and what was written since. */
export async function missingImages(disk: ManifestDisk): Promise<string[]> {
  const { base, below = [], dataFiles = [], overlay, merged, pivoted } = disk;
  if (merged || pivoted === true) return [];
  const named = [base.file, ...below.map(({ file }) => file), ...dataFiles, overlay.file];
  const missing: string[] = [];
  // Where a relative name leads is not known.
  for (const file of named.filter(isAbsolute)) if (!(await exists(file))) missing.push(file);
  return missing;
}

/**
 * Overlays of disks that are not merged, which are not there: known to have been removed, and those that may be
 * elsewhere.
 */
export async function missingOverlays({ disks }: Manifest): Promise<{ removed: string[]; unseen: string[] }> {
  const removed: string[] = [];
  const unseen: string[] = [];
  for (const disk of disks) {
    const { file } = disk.overlay;
    if (disk.merged || disk.pivoted === true || (await exists(file))) continue;
    ((await isInItsFolder(disk)) ? removed : unseen).push(file);
  }
  return { removed, unseen };
}

async function isInItsFolder({ overlay, base, overlayFolder }: ManifestDisk): Promise<boolean> {
  const now = await folderOf(overlay.file);
  if (now === undefined) return false;
  if (overlayFolder !== undefined) return now.device === overlayFolder.device && now.inode === overlayFolder.inode;
  // A set of an older version: its base speaks for the filesystem, if both lie on one.
  return (await exists(base.file)) && String((await stat(base.file, { bigint: true })).dev) === now.device;
}
