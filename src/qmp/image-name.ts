// Takes QEMU's own name of an image apart. The name is a plain path if opening that in its format gives the same bytes. Else
// it is `json:{...}` with every option that matters: an offset, a key, a backing file other than the header's. So a name
// tells which file it is, and what a path alone would lose. Source in QEMU 7.2: block.c, bdrv_refresh_filename.
import * as v from 'valibot';

/** Drivers that give a local file's bytes as they are. */
export const protocols: readonly string[] = ['file', 'host_device'];

export interface ImageName {
  /** The one local file or device, as QEMU has it; undefined if there is none, or not just one. */
  readonly file: string | undefined;
  /** The driver that gives the bytes: `file`, `nbd`, `throttle`, ...; undefined if the name does not tell. */
  readonly driver: string | undefined;
  /** Options that the path alone would lose: `offset`, `encrypt.key-secret`, `backing`, ... */
  readonly options: readonly string[];
  /** The name of the layer below, if it is one of the options; null: none, whatever the header says. */
  readonly backing: string | null | undefined;
  /** The id of the object in QEMU that holds the image's key. */
  readonly keySecret: string | undefined;
}

const nothing: ImageName = {
  file: undefined,
  driver: undefined,
  options: [],
  backing: undefined,
  keySecret: undefined,
};
const objectSchema = v.looseObject({ driver: v.string() });
const membersSchema = v.record(v.string(), v.unknown());
type NodeOptions = v.InferOutput<typeof objectSchema>;

export function parseImageName(name: string): ImageName {
  if (name.startsWith('json:')) return parseOptions(name.slice('json:'.length));
  // `nbd://host/x`, `rbd:pool/x`; a relative path with a colon is written `./a:b`.
  const scheme = /^([A-Za-z][A-Za-z0-9-]*)[A-Za-z0-9+.-]*:/.exec(name)?.[1];
  return scheme === undefined ? { ...nothing, file: name, driver: 'file' } : { ...nothing, driver: scheme };
}

/** The options that open the image; undefined if the name is a path, or cannot be read. */
export function imageOptions(name: string): Readonly<Record<string, unknown>> | undefined {
  return name.startsWith('json:') ? readOptions(name.slice('json:'.length)) : undefined;
}

/** The same options without the layer below. */
export function layerOptions(name: string): Readonly<Record<string, unknown>> | undefined {
  const options = imageOptions(name);
  if (options === undefined) return undefined;
  return Object.fromEntries(Object.entries(options).filter(([key]) => key !== 'backing'));
}

/** The local file behind the name, else the name itself: for telling images apart, never for opening one. */
export function imageFile(name: string): string {
  return parseImageName(name).file ?? name;
}

function parseOptions(text: string): ImageName {
  const options = readOptions(text);
  return options === undefined ? nothing : fromOptions(options);
}

function readOptions(text: string): NodeOptions | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // QEMU cuts names at 4095 bytes.
    return undefined;
  }
  const members = v.safeParse(membersSchema, json);
  if (!members.success) return undefined;
  const nested = withNodes(members.output);
  const whole = v.safeParse(objectSchema, nested);
  if (whole.success) return whole.output;
  // In a header, where the format stands beside it, libvirt names no driver of the whole.
  const file = v.safeParse(objectSchema, nested['file']);
  return file.success && ['raw', ...protocols].includes(file.output.driver) ? file.output : undefined;
}

/** Nests dotted options, as other tools write them in a header: `file.filename` is the `filename` within `file`. */
function withNodes(flat: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const nested: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(flat)) {
    const [, node, member] = /^(file|backing)\.(.+)$/.exec(key) ?? [];
    if (node === undefined || member === undefined) nested[key] = value;
    else nested[node] = { ...membersOf(nested[node]), [member]: value };
  }
  for (const node of ['file', 'backing']) {
    const inner = membersOf(nested[node]);
    if (inner !== undefined) nested[node] = withNodes(inner);
  }
  return nested;
}

function membersOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  const parsed = v.safeParse(membersSchema, value);
  return parsed.success ? parsed.output : undefined;
}

function fromOptions(node: NodeOptions): ImageName {
  const { driver, file, backing, filename, encrypt, ...rest } = node;
  if (protocols.includes(driver)) {
    const options = Object.keys({ ...rest, ...optional({ file, backing, encrypt }) });
    return { ...nothing, file: typeof filename === 'string' ? filename : undefined, driver, options };
  }
  const below = v.safeParse(objectSchema, file);
  // The driver has several images, or no image at all.
  if (!below.success) return { ...nothing, driver };
  const inner = protocols.includes(below.output.driver) ? fromOptions(below.output) : undefined;
  return {
    file: inner?.file,
    driver: below.output.driver,
    options: [...Object.keys({ ...rest, ...optional({ backing, encrypt, filename }) }), ...(inner?.options ?? [])],
    backing: backing === undefined ? undefined : nameOf(backing),
    keySecret: keySecretOf(rest['encrypt.key-secret'], encrypt),
  };
}

function optional(members: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}

// An object is a node's options; null is no layer at all.
function nameOf(backing: unknown): string | null {
  if (backing === null) return null;
  return typeof backing === 'string' ? backing : `json:${JSON.stringify(backing)}`;
}

function keySecretOf(dotted: unknown, nested: unknown): string | undefined {
  if (typeof dotted === 'string') return dotted;
  const parsed = v.safeParse(v.object({ 'key-secret': v.string() }), nested);
  return parsed.success ? parsed.output['key-secret'] : undefined;
}
