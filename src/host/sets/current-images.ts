// The image that each disk of a VM is to be started from: what the newest set of the disk says. For plain QEMU, whose command
// line is somebody else's: `snapshot start-args` prints them, and links in the state folder lead to them, switched whenever
// a set changes, so that a start script may name these instead.
import { mkdir, readdir, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseImageName } from '../../qmp/image-name.js';
import { exists, syncPath } from '../images/durable-file.js';
import type { ManifestStore } from './manifest-store.js';
import type { ManifestDisk } from './manifest.js';
import { viewSet, type DiskView, type SetView } from './set-view.js';

/** Folder of the links, in the VM's. Hidden: others in there are sets. */
export const LINKS = '.images';

export interface StartImage {
  readonly file: string;
  readonly format: string;
  /** QEMU's name of it, where the path does not say all: with an offset, a key, another backing file. */
  readonly name?: string;
  /** The id of the object in QEMU that holds its key, as far as it is known. */
  readonly keySecret?: string;
}

export interface CurrentImage {
  /** Of the disk, as the set has it. */
  readonly id: string;
  readonly serial?: string;
  /** The node's name at the cut, if it had one. */
  readonly node?: string;
  /** Undefined if only a person can tell: `notes` of the set's view say why. */
  readonly image: StartImage | undefined;
  /** That says so. */
  readonly set: string;
}

/** By what is recorded and in the files: for who has just changed the sets. With one that cannot be read nothing is touched. */
export async function refreshLinks(store: ManifestStore, folder: string): Promise<void> {
  const { manifests, unreadable } = await store.readAll();
  if (unreadable.some(({ empty }) => !empty)) return;
  if (manifests.length === 0 && !(await exists(folder))) return;
  const views: SetView[] = [];
  for (const manifest of manifests) {
    views.push(await viewSet(manifest, { monitors: [], isRunning: true, isBusy: false }));
  }
  await switchLinks(folder, currentImages(views));
}

/** One for each disk that any of the sets holds. `views` are all of the VM's, oldest first. */
export function currentImages(views: readonly SetView[]): CurrentImage[] {
  const images = new Map<string, CurrentImage>();
  for (const { manifest, disks } of views) {
    for (const [index, { id, serial, base }] of manifest.disks.entries()) {
      const newest = disks[index]?.newest;
      images.set(id, {
        id,
        ...(serial === undefined ? {} : { serial }),
        ...(base.node === undefined ? {} : { node: base.node }),
        image: newest === undefined ? undefined : startImage(newest, base),
        set: manifest.set,
      });
    }
  }
  return [...images.values()];
}

function startImage(
  { layer, file, format }: NonNullable<DiskView['newest']>,
  { name }: ManifestDisk['base'],
): StartImage {
  // The overlay of an encrypted base is encrypted with the same secret.
  const { keySecret } = parseImageName(name ?? '');
  return {
    file,
    format,
    ...(layer === 'base' && name !== undefined ? { name } : {}),
    ...(keySecret === undefined ? {} : { keySecret }),
  };
}

/** False for an image that a path alone does not open as it must be; its secret is given by whoever starts the VM. */
export function canBeLinked({ name = '' }: StartImage): boolean {
  return parseImageName(name).options.every((option) => /^encrypt(\.|$)/.test(option));
}

/**
 * Makes `folder/ID` a link to the image of each disk and `folder/ID.format` a file with its format; what is right already
 * is not touched. A disk whose image is not known, or is not opened by its path alone, has no link: to start from a wrong
 * one is worse than not to start.
 */
export async function switchLinks(folder: string, images: readonly CurrentImage[]): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o755 });
  const wanted = new Map<string, string>();
  for (const { id, image } of images) {
    if (image === undefined || !canBeLinked(image) || !isPlain(id)) continue;
    wanted.set(id, image.file);
    wanted.set(`${id}.format`, image.format);
  }
  for (const name of await readdir(folder)) if (!wanted.has(name)) await rm(join(folder, name), { force: true });
  for (const { id, image } of images) {
    if (image === undefined || !wanted.has(id)) continue;
    const link = join(folder, id);
    if ((await readlink(link).catch(() => undefined)) === image.file) continue;
    // The format first: who reads both in between finds an image of another format, which QEMU refuses, or no link.
    await rm(link, { force: true });
    await writeFile(`${link}.format`, `${image.format}\n`);
    await symlink(image.file, `${link}.new`);
    await rename(`${link}.new`, link);
  }
  await syncPath(folder);
}

/** Names a file: what a monitor says of its devices need not. */
function isPlain(id: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(id) && !id.endsWith('.format') && !id.endsWith('.new');
}
