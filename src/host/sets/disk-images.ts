// Which images the disks of a VM are on, as this host knows it: written down, in the VM's record, whenever the VM is backed
// up while it runs, with the images that each disk was on before. Who changes images of a VM that is shut off goes by that,
// and never by what a repository says, which others may write to.
import { UsageError } from '../../errors.js';
import { fileKey } from '../images/same-file.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { imageFormats } from '../vm/disk-choice.js';
import type { VmIdentity } from '../vm/identity.js';
import type { Manifest } from './manifest.js';
import { noteImages, type DiskImage } from './vm-record.js';

/** Overlays of so many sets. */
const EARLIER_KEPT = 64;

/** The VM runs on these disks. Durable when it returns; the caller holds the VM's lock. */
export async function noteDisks(
  stateDir: string,
  identity: VmIdentity,
  disks: readonly VmDisk[],
  sets: readonly Manifest[],
): Promise<void> {
  await noteImages(stateDir, identity, async (before) => {
    const images: DiskImage[] = [];
    for (const { id, serial, file, format: name } of disks) {
      const format = imageFormats.find((each) => each === name);
      if (format === undefined) continue;
      const old = before.find((each) => each.id === id && each.serial === serial);
      const earlier = await othersOf(file, groupsOf(id, sets, old));
      images.push({
        id,
        ...(serial === undefined ? {} : { serial }),
        file,
        format,
        earlier: earlier.slice(-EARLIER_KEPT),
      });
    }
    return images;
  });
}

/** What another record says of a disk: which it was, and on which image. */
export interface ClaimedDisk {
  readonly id: string;
  readonly serial?: string | undefined;
  readonly source: { readonly file: string };
}

/**
 * The image that this host knows the disk to be on, or, if sets were made since, to have been on. `what` names who claims
 * that it is the disk. Throws a UsageError `E_NEWEST_UNKNOWN` if this host does not know the disk, `E_NO_IMAGE` if it is
 * another one.
 */
export async function imageOf(
  claimed: ClaimedDisk,
  what: string,
  known: readonly DiskImage[],
  sets: readonly Manifest[],
): Promise<DiskImage> {
  const { id, serial, source } = claimed;
  const image = known.find((each) => each.id === id);
  if (image === undefined) {
    const message = `which image disk ${id} is on this host does not know: it learns that when it backs up the running VM`;
    throw new UsageError('E_NEWEST_UNKNOWN', message);
  }
  const isSame = image.serial === serial && (await isOneDisk(image.file, source.file, groupsOf(id, sets, image)));
  if (isSame) return image;
  const told = (file: string, number: string | undefined): string => `${file} (serial ${number ?? 'none'})`;
  const expected = `expected ${told(source.file, serial)}, as ${what} says, found ${told(image.file, image.serial)}`;
  throw new UsageError('E_NO_IMAGE', `disk ${id} is another disk by now: ${expected}`);
}

/** Files of which it is known that the disk was on each of them, one after the other. */
type Group = readonly string[];

function groupsOf(id: string, sets: readonly Manifest[], known: DiskImage | undefined): readonly Group[] {
  const ofSets = sets.flatMap(({ disks }) => disks.filter((disk) => disk.id === id));
  const groups = ofSets.map(({ overlay, base, below = [] }) => [overlay, base, ...below].map(({ file }) => file));
  return known === undefined ? groups : [[...known.earlier, known.file], ...groups];
}

async function isOneDisk(one: string, other: string, groups: readonly Group[]): Promise<boolean> {
  const key = await fileKey(other);
  for (const file of [one, ...(await othersOf(one, groups))]) if ((await fileKey(file)) === key) return true;
  return false;
}

/** The files that groups join to this one, at whatever distance. */
async function othersOf(file: string, groups: readonly Group[]): Promise<string[]> {
  const own = await fileKey(file);
  const found = new Map([[own, file]]);
  for (let before = 0; before < found.size;) {
    before = found.size;
    for (const group of groups) {
      const keys = await Promise.all(group.map(fileKey));
      if (!keys.some((key) => found.has(key))) continue;
      for (const [index, key] of keys.entries()) if (!found.has(key)) found.set(key, group[index] ?? key);
    }
  }
  found.delete(own);
  return [...found.values()];
}
