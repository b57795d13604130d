// Gives the layers of a set's disk as they are to be opened, and the name that a header is to give its base. A set of
// an older version does not record that name: the header of its overlay has it, as it was written at the cut.
import { isAbsolute } from 'node:path';
import { imageName, openLayers, type NamedLayer, type OpenLayer } from '../images/layers.js';
import { referencesOf } from '../images/references.js';
import { sameFile } from '../images/same-file.js';
import { imageFile, imageOptions } from '../../qmp/image-name.js';
import type { ManifestDisk } from './manifest.js';

/** The name that a header must give the disk's base: its path, or QEMU's name of it with options. */
export async function baseNameOf(disk: ManifestDisk): Promise<string> {
  return (await namedBase(disk)).name ?? disk.base.file;
}

/** The base with its name, where its path does not say all. */
export async function namedBase({ base, overlay }: ManifestDisk): Promise<NamedLayer> {
  const { file, format, name } = base;
  if (name !== undefined) return { file, format, name };
  const { backingName } = await referencesOf(overlay.file).catch(() => ({ backingName: undefined }));
  if (backingName === undefined || imageOptions(backingName)?.['driver'] !== format) return { file, format };
  return (await sameFile(imageFile(backingName), file)) ? { file, format, name: backingName } : { file, format };
}

/** The disk, with its base's name as that of a newer version: for when the overlay, whose header has it, is to go. */
export async function withNamedBase(disk: ManifestDisk): Promise<ManifestDisk> {
  const { name } = await namedBase(disk);
  return name === undefined ? disk : { ...disk, base: { ...disk.base, name } };
}

interface Chain {
  readonly layers: readonly OpenLayer[];
  /** False if more lies below: in a set of an older version, which does not say what, or on the network. */
  readonly isWhole: boolean;
}

/** The base and the files below it. Throws what openLayers does. */
async function baseChain(disk: ManifestDisk): Promise<Chain> {
  const { id, base, below, dataFiles = [] } = disk;
  const foreign = below?.findIndex(({ file }) => !isAbsolute(file)) ?? 0;
  const files = foreign === -1 ? below : below?.slice(0, foreign);
  const layers = await openLayers(id, [await namedBase(disk), ...(files ?? [])], dataFiles);
  return { layers, isWhole: base.format === 'raw' || foreign === -1 };
}

export interface OpenNames {
  readonly base: string;
  /** The overlay, over the base. */
  readonly overlay: string;
}

/** The names by which qemu-img opens the disk's images, whatever their headers say. Throws what openLayers does. */
export async function openNames(disk: ManifestDisk): Promise<OpenNames> {
  const { layers, isWhole } = await baseChain(disk);
  const overlay = await openLayers(disk.id, [disk.overlay], []);
  return { base: imageName(layers, isWhole), overlay: imageName([...overlay, ...layers], isWhole) };
}

/**
 * Why qemu-img cannot read the disk, for people: a layer is encrypted, and only the VM has the key. Undefined if it can. A
 * layer that is not there is another's to find.
 */
export async function whySecret({ base, overlay, below = [], encryption }: ManifestDisk): Promise<string | undefined> {
  if (encryption !== undefined) return `${base.file} is encrypted`;
  for (const { file, format } of [overlay, base, ...below]) {
    if (format === 'luks') return `${file} is encrypted`;
    if (format !== 'qcow2') continue;
    const { isEncrypted } = await referencesOf(file).catch(() => ({ isEncrypted: false }));
    if (isEncrypted) return `${file} is encrypted`;
  }
  return undefined;
}
