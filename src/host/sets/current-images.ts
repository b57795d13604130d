// Tells which image each disk of a VM is to be started from: the one that the newest set of the disk says. This is for
// plain QEMU, whose command line is somebody else's: `snapshot start-args` prints the images, and links in the state
// folder lead to them, switched whenever a set changes, so that a start script may name the links instead.
import { lstat, mkdir, readdir, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { defined } from '../../defined.js';
import { isErrno } from '../../errors.js';
import { parseImageName } from '../../qmp/image-name.js';
import { exists, syncPath } from '../images/durable-file.js';
import { fileKey } from '../images/same-file.js';
import { withNamedBase } from './disk-layers.js';
import type { Manifest, ManifestDisk } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { isOverlayOver } from './merged-disks.js';
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
  /** The id of the disk, as the set has it. */
  readonly id: string;
  readonly serial?: string;
  /** The node's name at the cut, if it had one. */
  readonly node?: string;
  /** Undefined if only a person can tell: `notes` of the set's view say why. */
  readonly image: StartImage | undefined;
  /** The set that says so. */
  readonly set: string;
}

/**
 * Switches the links after the sets have changed, by what is recorded and in the files. If a set cannot be read,
 * nothing is touched.
 */
export async function refreshLinks(store: ManifestStore, folder: string): Promise<void> {
  const { manifests, unreadable } = await store.readAll();
  if (unreadable.some(({ empty }) => !empty)) return;
  if (manifests.length === 0 && !(await exists(folder))) return;
  const views: SetView[] = [];
  for (const manifest of manifests) {
    views.push(await viewSet(manifest, { monitors: [], isRunning: true, isBusy: false }));
  }
  await switchLinks(folder, await currentImages(views), await imagesBelow(views.map((view) => view.manifest)));
}

/** The images below the overlay of a disk, by `fileKey`: a VM that is started from one of them spoils a cut. */
async function imagesBelow(manifests: readonly Manifest[]): Promise<ReadonlySet<string>> {
  const keys = new Set<string>();
  for (const manifest of manifests) {
    for (const disk of manifest.disks) {
      if (isOverlayOver(manifest, disk)) continue;
      for (const { file } of [disk.base, ...(disk.below ?? [])]) keys.add(await fileKey(file));
    }
  }
  return keys;
}

/**
 * One for each disk that any of the sets holds; none where all that they say is over, and the image they name is gone.
 * `views` are all of the VM's, oldest first.
 */
export async function currentImages(views: readonly SetView[]): Promise<CurrentImage[]> {
  const overlays = new Set<string>();
  for (const { manifest } of views) {
    for (const { overlay } of manifest.disks) overlays.add(await fileKey(overlay.file));
  }
  const images = new Map<string, CurrentImage>();
  for (const { manifest, disks } of views) {
    for (const [index, disk] of manifest.disks.entries()) {
      if (isOverlayOver(manifest, disk) && !(await isLastWord(disk, overlays))) continue;
      const { id, serial, base } = await withNamedBase(disk);
      const newest = disks[index]?.newest;
      images.set(id, {
        id,
        ...defined({ serial, node: base.node }),
        image: newest === undefined ? undefined : startImage(newest, base),
        set: manifest.set,
      });
    }
  }
  return [...images.values()];
}

/**
 * Whether a disk whose overlay is merged, or was never used, tells where the newest is: in its base, unless that is another
 * set's overlay, which may be merged as well by now. Then that set knows.
 */
async function isLastWord({ base: { file } }: ManifestDisk, overlays: ReadonlySet<string>): Promise<boolean> {
  return !overlays.has(await fileKey(file)) && (!isAbsolute(file) || (await exists(file)));
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
    ...defined({ keySecret }),
  };
}

/** False for an image that a path alone does not open as it must be; its secret is given by whoever starts the VM. */
export function canBeLinked({ name = '' }: { readonly name?: string | undefined }): boolean {
  return parseImageName(name).options.every((option) => /^encrypt(\.|$)/.test(option));
}

/**
 * Makes `folder/DISK` a link to the image of each disk and `folder/DISK.format` a file with its format; what is right
 * already is not touched. A disk whose image is not known, or is not opened by its path alone, has no link: to start from
 * a wrong one is worse than not to start. A disk that no set holds any more keeps a link that leads somewhere: start
 * scripts name it; unless to one of `below` (by `fileKey`): then the disk has another id by now, and a newer image. A file
 * that is no link is left alone.
 */
export async function switchLinks(
  folder: string,
  images: readonly CurrentImage[],
  below: ReadonlySet<string> = new Set(),
): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o755 });
  const wanted = linksOf(images);
  for (const name of await readdir(folder)) {
    const link = name.replace(/\.format$/, '');
    const stays = wanted.has(link) ? wanted.get(link) !== undefined : await isKept(join(folder, link), below);
    if (!stays && (await isOurs(join(folder, name)))) await rm(join(folder, name), { force: true });
  }
  for (const [name, image] of wanted) if (image !== undefined) await switchLink(join(folder, name), image);
  await syncPath(folder);
}

/**
 * Before overlays are removed: a link that leads to one of them leads to the image below it from then on, or is gone.
 */
export async function leaveOverlays(folder: string, manifest: Manifest, overlays: readonly string[]): Promise<void> {
  for (const disk of manifest.disks) {
    const { id, overlay, base } = await withNamedBase(disk);
    const link = join(folder, linkName(id));
    const target = await readlink(link).catch(() => undefined);
    if (target !== overlay.file || !overlays.includes(target)) continue;
    if (canBeLinked(base)) await switchLink(link, base);
    else for (const each of [link, `${link}.format`]) await rm(each, { force: true });
  }
}

/**
 * The images by the names of their links; undefined where no link may be: the image is not known, or its path alone does not open it, or two disks
 * would share the name.
 */
function linksOf(images: readonly CurrentImage[]): ReadonlyMap<string, StartImage | undefined> {
  const links = new Map<string, StartImage | undefined>();
  for (const { id, image } of images) {
    const name = linkName(id);
    const isAlone = image !== undefined && canBeLinked(image) && !links.has(name);
    links.set(name, isAlone ? image : undefined);
  }
  return links;
}

async function switchLink(link: string, { file, format }: Pick<StartImage, 'file' | 'format'>): Promise<void> {
  if (!(await isLinkOrNothing(link)) || (await readlink(link).catch(() => undefined)) === file) return;
  // The format first: who reads both in between finds an image of another format, which QEMU refuses, or no link.
  await rm(link, { force: true });
  await writeFile(`${link}.format`, `${format}\n`);
  // A tool that was killed before it renamed the link has left it.
  if (await isLinkOrNothing(`${link}.new`)) await rm(`${link}.new`, { force: true });
  await symlink(file, `${link}.new`);
  await rename(`${link}.new`, link);
}

/** True for a link that leads somewhere, spoils nothing there, and was not left half made by a tool that was killed. */
async function isKept(link: string, below: ReadonlySet<string>): Promise<boolean> {
  if (link.endsWith('.new') || !(await exists(link).catch(() => false))) return false;
  return !below.has(await fileKey(link));
}

async function isOurs(file: string): Promise<boolean> {
  return file.endsWith('.format') || (await isLinkOrNothing(file));
}

// Somebody may have put an image there, or a copy of the folder has images in place of its links: those are never
// removed.
async function isLinkOrNothing(file: string): Promise<boolean> {
  try {
    return (await lstat(file)).isSymbolicLink();
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true;
    throw error;
  }
}

/**
 * The link of ours that the name is, or leads through; undefined for other names. QEMU keeps the name for as long as it
 * runs, while the link is switched at the next cut: then the name means another file, to us as well as in a header.
 */
export async function linkIn(file: string): Promise<string | undefined> {
  let name = file;
  // The kernel follows as many links.
  for (let depth = 0; depth < 40; depth++) {
    const target = await readlink(name).catch(() => undefined);
    if (target === undefined) return undefined;
    if (basename(dirname(name)) === LINKS) return name;
    name = resolve(dirname(name), target);
  }
  return undefined;
}

/** The link's name. A device's id need not be a file's name (`device[0]` of a `-drive if=virtio`). */
export function linkName(id: string): string {
  const name = id.replace(/[^A-Za-z0-9._-]+/g, '-').replace(/^[^A-Za-z0-9]+|-+$/g, '');
  return /^$|\.(format|new)$/.test(name) ? `disk-${name}`.replace(/\./g, '-') : name;
}
