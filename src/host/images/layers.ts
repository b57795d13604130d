// Names the layers of a disk to qemu-img: each with its format, its options and the layer below, in one `json:` name.
// So no header is believed and no format probed (a guest that may write to a raw image can write a qcow2 header to it),
// and no option is lost (the offset of a disk that is part of a file).
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { imageOptions, layerOptions } from '../../qmp/image-name.js';
import { referencesOf } from './references.js';

export interface NamedLayer {
  readonly file: string;
  readonly format: string;
  /** QEMU's own name of it, where its path does not say all. */
  readonly name?: string | undefined;
}

export interface OpenLayer extends NamedLayer {
  readonly isDevice: boolean;
  /** The path of its external data file, absolute. */
  readonly dataFile?: { readonly file: string; readonly isDevice: boolean };
}

/**
 * The layers, first on top, with the data files that those of them have which have one, in their order. Throws a UsageError
 * that names the disk for a layer that is no local file, is not there, or whose data file is named by a relative path.
 */
export async function openLayers(
  id: string,
  named: readonly NamedLayer[],
  dataFiles: readonly string[],
): Promise<OpenLayer[]> {
  const layers: OpenLayer[] = [];
  const left = [...dataFiles];
  for (const layer of named) {
    const { file, format } = layer;
    if (!isAbsolute(file)) throw new UsageError('E_NO_IMAGE', `disk ${id}: ${file} is no path of a local file`);
    const isDevice = await isBlockDevice(id, file);
    const hasDataFile = format === 'qcow2' && (await referencesOf(file)).dataFiles.length > 0;
    // A set of an older version may not name them: the header does.
    const dataFile = hasDataFile ? left.shift() : undefined;
    if (dataFile !== undefined && !isAbsolute(dataFile)) {
      const message = `disk ${id}: where ${dataFile}, the data file of ${file}, lies is not known`;
      throw new UsageError('E_NO_IMAGE', message);
    }
    const data = dataFile === undefined ? undefined : { file: dataFile, isDevice: await isBlockDevice(id, dataFile) };
    layers.push({ ...layer, isDevice, ...defined({ dataFile: data }) });
  }
  return layers;
}

async function isBlockDevice(id: string, file: string): Promise<boolean> {
  const found = await stat(file).catch((cause: unknown) => {
    throw new UsageError('E_NO_IMAGE', `disk ${id}: ${file} cannot be found`, { cause });
  });
  return found.isBlockDevice();
}

/**
 * The name by which qemu-img opens the layers, the first on top. `isWhole`: nothing lies below the last of them; else what
 * its own name says, or its header.
 */
export function imageName(layers: readonly OpenLayer[], isWhole = true): string {
  let image: object | null | undefined = isWhole ? null : undefined;
  for (const { file, format, name = '', isDevice, dataFile } of layers.toReversed()) {
    const own: object = (image === undefined ? imageOptions(name) : layerOptions(name)) ?? {
      driver: format,
      file: fileOptions(file, isDevice),
    };
    // QEMU takes a relative one from its working folder, which need not be ours.
    const data = dataFile === undefined ? {} : { 'data-file': fileOptions(dataFile.file, dataFile.isDevice) };
    // Null: not what the header names. Formats that know no backing file do not know the option either.
    const hasBacking: boolean = image !== undefined && (image !== null || format === 'qcow2');
    image = { ...own, ...data, ...(hasBacking ? { backing: image } : {}) };
  }
  return `json:${JSON.stringify(image)}`;
}

function fileOptions(file: string, isDevice: boolean): object {
  return { driver: isDevice ? 'host_device' : 'file', filename: file };
}
