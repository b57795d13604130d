// The layers that hold a disk's state of the cut, and how qemu-img is told of them: each with its format and with the
// layer below, in a `json:` name, so that no header is believed and no format probed (a guest that may write to a raw
// image can write a qcow2 header to it).
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import * as v from 'valibot';
import { CutError, UsageError } from '../../errors.js';
import { runQemuImg, type TaskLimits } from '../images/qemu-img-task.js';
import type { ManifestDisk } from '../sets/manifest.js';

export interface ChainLayer {
  readonly file: string;
  readonly format: string;
  readonly isDevice: boolean;
}

export interface ImageChain {
  /** The base first, then what lies below it. */
  readonly layers: readonly ChainLayer[];
  /** External data files of the layers. */
  readonly dataFiles: readonly string[];
}

const infoSchema = v.array(
  v.object({
    filename: v.string(),
    format: v.string(),
    encrypted: v.optional(v.boolean()),
    'backing-filename': v.optional(v.string()),
    'backing-filename-format': v.optional(v.string()),
    'format-specific': v.optional(v.object({ data: v.optional(v.unknown()) })),
  }),
);
const dataFileSchema = v.object({ 'data-file': v.string() });

/** Throws a UsageError for a chain that cannot be copied as it is, and what qemu-img throws. */
export async function chainOf(disk: ManifestDisk, limits: TaskLimits): Promise<ImageChain> {
  const { base, below, dataFiles = [], encryption, id } = disk;
  if (encryption !== undefined) throw encrypted(id, base.file);
  if (below !== undefined) return { layers: await layersAt(id, [base, ...below]), dataFiles };
  if (base.format === 'raw') return { layers: await layersAt(id, [base]), dataFiles };
  // A set of an older version names its base alone. Reads headers only: -U does no harm.
  const args = ['info', '--output=json', '--backing-chain', '-U', '-f', base.format, base.file];
  const { stdout } = await runQemuImg(args, limits);
  const parsed = v.safeParse(infoSchema, JSON.parse(stdout));
  if (!parsed.success) throw new CutError('E_QEMU_IMG', `qemu-img info ${base.file}: ${parsed.issues[0].message}`);
  const infos = parsed.output;
  for (const info of infos) {
    if (info.encrypted === true) throw encrypted(id, info.filename);
    if (info['backing-filename'] === undefined || info['backing-filename-format'] !== undefined) continue;
    const message = `disk ${id}: ${info.filename} does not say which format ${info['backing-filename']} has`;
    throw new UsageError(
      'E_FORMAT',
      `${message}: write it down with "qemu-img rebase -u -F FORMAT -b FILE", VM shut off`,
    );
  }
  const found = infos.map(({ filename, format }) => ({ file: filename, format }));
  return { layers: await layersAt(id, found), dataFiles: infos.flatMap(dataFileOf) };
}

function encrypted(id: string, file: string): UsageError {
  return new UsageError(
    'E_ENCRYPTED',
    `disk ${id}: ${file} is encrypted: its secret is not known here, nothing was copied`,
  );
}

function dataFileOf(info: v.InferOutput<typeof infoSchema>[number]): string[] {
  const parsed = v.safeParse(dataFileSchema, info['format-specific']?.data);
  return parsed.success ? [parsed.output['data-file']] : [];
}

async function layersAt(
  id: string,
  files: readonly { readonly file: string; readonly format: string }[],
): Promise<ChainLayer[]> {
  const layers: ChainLayer[] = [];
  for (const { file, format } of files) {
    if (!isAbsolute(file)) {
      throw new UsageError('E_NO_IMAGE', `disk ${id}: ${file} is no path of a local file: it cannot be copied`);
    }
    const found = await stat(file).catch((cause: unknown) => {
      throw new UsageError('E_NO_IMAGE', `disk ${id}: ${file}, which holds the cut, cannot be found`, { cause });
    });
    layers.push({ file, format, isDevice: found.isBlockDevice() });
  }
  return layers;
}

/** The name by which qemu-img opens the layers, the first on top. */
export function imageName(layers: readonly ChainLayer[]): string {
  let image: object | null = null;
  for (const { file, format, isDevice } of layers.toReversed()) {
    const opened = { driver: format, file: { driver: isDevice ? 'host_device' : 'file', filename: file } };
    // Null: not what the header names. Formats that know no backing file do not know the option either.
    image = image !== null || format === 'qcow2' ? { ...opened, backing: image } : opened;
  }
  return `json:${JSON.stringify(image)}`;
}
