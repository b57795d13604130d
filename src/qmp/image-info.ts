// Reads what QEMU says of an image beyond its name: the layers below it, its external data files, its encryption. Its source
// is `image` in query-block, which nests the layers below; the flat list of nodes does not. Specification: QEMU
// qapi/block-core.json, ImageInfo.
import * as v from 'valibot';
import { imageFile, parseImageName, protocols } from './image-name.js';

/** A layer of a chain. */
export interface ImageLayer {
  /** As QEMU has it: may be no local file at all. */
  readonly file: string;
  readonly format: string;
  /** QEMU's name of it, where the path loses an option other than what lies below. */
  readonly name?: string;
}

const layerSchema = v.object({
  filename: v.string(),
  format: v.string(),
  encrypted: v.optional(v.boolean(), false),
  'format-specific': v.optional(v.object({ type: v.string(), data: v.unknown() })),
  'backing-image': v.optional(v.unknown()),
});
const qcow2Schema = v.object({
  'data-file': v.optional(v.string()),
  encrypt: v.optional(
    v.object({
      format: v.string(),
      slots: v.optional(v.array(v.object({ iters: v.optional(v.number(), 0) })), []),
    }),
  ),
});

export interface Encryption {
  /** `luks`. */
  readonly format: string;
  /** How often its secret is stretched before it opens the image. */
  readonly iterations: number;
}

export interface ImageChain {
  /** The layers below the image, nearest first. */
  readonly below: readonly ImageLayer[];
  /** External data files of the image and of the layers below it. QEMU takes a relative one from its working directory. */
  readonly dataFiles: readonly string[];
  /** How the image itself is encrypted; undefined if it is not. */
  readonly encryption: Encryption | undefined;
}

/**
 * The chain of `own`, the image of a format node, within `image`, that of a drive in query-block (to QEMU a filter above the
 * format node is a layer, too). Layers that cannot be read are left out. Never throws.
 */
export function readChain(image: unknown, own: { readonly filename: string; readonly format: string }): ImageChain {
  const layers = nested(image);
  const at = layers.findIndex(({ filename, format }) => filename === own.filename && format === own.format);
  const chain = at === -1 ? nested(own).slice(0, 1) : layers.slice(at);
  const facts = chain.map(({ 'format-specific': specific }) => {
    const qcow2 = v.safeParse(qcow2Schema, specific?.type === 'qcow2' ? specific.data : {});
    return qcow2.success ? qcow2.output : {};
  });
  const isEncrypted = chain[0]?.encrypted === true || facts[0]?.encrypt !== undefined;
  return {
    below: chain.slice(1).map(({ filename, format }) => ({
      file: imageFile(filename),
      format: protocols.includes(format) ? 'raw' : format,
      ...(parseImageName(filename).options.every((option) => option === 'backing') ? {} : { name: filename }),
    })),
    dataFiles: facts.flatMap(({ 'data-file': dataFile }) => (dataFile === undefined ? [] : [imageFile(dataFile)])),
    encryption: isEncrypted ? encryptionOf(facts[0]?.encrypt) : undefined,
  };
}

function encryptionOf(encrypt: v.InferOutput<typeof qcow2Schema>['encrypt']): Encryption {
  const { format = 'unknown', slots = [] } = encrypt ?? {};
  return { format, iterations: Math.max(0, ...slots.map(({ iters }) => iters)) };
}

type NestedImage = v.InferOutput<typeof layerSchema>;

function nested(image: unknown): NestedImage[] {
  const layers: NestedImage[] = [];
  for (let next = image; ;) {
    const parsed = v.safeParse(layerSchema, next);
    if (!parsed.success) return layers;
    layers.push(parsed.output);
    next = parsed.output['backing-image'];
  }
}
