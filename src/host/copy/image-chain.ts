// Finds the layers that hold a disk's state of the cut, to be copied.
import * as v from 'valibot';
import { CutError, UsageError } from '../../errors.js';
import { imageFile } from '../../qmp/image-name.js';
import { openLayers, type NamedLayer, type OpenLayer } from '../images/layers.js';
import { runQemuImg, type TaskLimits } from '../images/qemu-img-task.js';
import { namedBase, whySecret } from '../sets/disk-layers.js';
import type { ManifestDisk } from '../sets/manifest.js';

export interface ImageChain {
  /** The base first, then what lies below it. */
  readonly layers: readonly OpenLayer[];
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
  const { base, below, dataFiles = [], id } = disk;
  const secret = await whySecret(disk);
  if (secret !== undefined) throw encrypted(id, secret);
  const chain = async (named: readonly NamedLayer[], files: readonly string[]): Promise<ImageChain> => ({
    layers: await openLayers(id, named, files),
    dataFiles: files,
  });
  if (below !== undefined) return await chain([await namedBase(disk), ...below], dataFiles);
  if (base.format === 'raw') return await chain([await namedBase(disk)], dataFiles);
  // A set of an older version names its base alone. Reads headers only: -U does no harm.
  const args = ['info', '--output=json', '--backing-chain', '-U', '-f', base.format, base.file];
  const { stdout } = await runQemuImg(args, limits);
  const parsed = v.safeParse(infoSchema, JSON.parse(stdout));
  if (!parsed.success) throw new CutError('E_QEMU_IMG', `qemu-img info ${base.file}: ${parsed.issues[0].message}`);
  const infos = parsed.output;
  for (const info of infos) {
    if (info.encrypted === true) throw encrypted(id, `${info.filename} is encrypted`);
    if (info['backing-filename'] === undefined || info['backing-filename-format'] !== undefined) continue;
    const message = `disk ${id}: ${info.filename} does not say which format ${info['backing-filename']} has`;
    throw new UsageError(
      'E_FORMAT',
      `${message}: write it down with "qemu-img rebase -u -F FORMAT -b FILE", VM shut off`,
    );
  }
  const found = infos.map(({ filename, format }) => ({ file: imageFile(filename), format, name: filename }));
  return await chain(found, infos.flatMap(dataFileOf));
}

function encrypted(id: string, what: string): UsageError {
  return new UsageError('E_ENCRYPTED', `disk ${id}: ${what}: its secret is not known here, nothing was copied`);
}

function dataFileOf(info: v.InferOutput<typeof infoSchema>[number]): string[] {
  const parsed = v.safeParse(dataFileSchema, info['format-specific']?.data);
  return parsed.success ? [parsed.output['data-file']] : [];
}
