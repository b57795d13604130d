// Finds which other files an image needs, by its own header: its backing file and its external data file. The header is
// read without QEMU, so that a folder of images is looked through in no time. Specification: QEMU
// docs/interop/qcow2.txt.
import { open } from 'node:fs/promises';
import { dirname, isAbsolute, resolve } from 'node:path';
import { defined } from '../../defined.js';
import { parseImageName } from '../../qmp/image-name.js';

const QCOW2_MAGIC = 0x514649fb;
/** QEMU's own bound for the name of a backing file. */
const MAX_NAME_BYTES = 1023;
/** Names and header extensions lie in the first cluster; this is the size of those that QEMU makes, if not told otherwise. */
const HEADER_BYTES = 65_536;
/** QEMU opens no image with larger clusters. */
const MAX_CLUSTER_BITS = 21;
const V2_HEADER_BYTES = 72;
const EXTENSION_DATA_FILE = 0x44415441;
const EXTENSION_BACKING_FORMAT = 0xe2792aca;
/** The lower half of its 64 bits. */
const AUTOCLEAR_OFFSET = 92;
const AUTOCLEAR_DATA_RAW = 2;

interface References {
  /** The name of its backing file, as it stands there: a path, or a name of QEMU's with options. */
  readonly backingName?: string;
  /** Every file in that name: a `json:` one may name the layers below the backing file, too. */
  readonly backing: readonly string[];
  /** The format of its backing file, if the header names it. */
  readonly backingFormat?: string;
  /** Taken from the image's own folder, as people mean a relative name. QEMU takes it from the folder it was started in. */
  readonly dataFiles: readonly string[];
  /** Names of data files that are relative. */
  readonly relativeData: readonly string[];
  /** The data file is the disk as it is, byte for byte. */
  readonly isDataRaw: boolean;
  /** True if the image cannot be read without a key. */
  readonly isEncrypted: boolean;
  /** How many states it holds beside the one that is read (`savevm`, `virsh snapshot-create`). */
  readonly internalSnapshots: number;
}

/** Files are made absolute; nothing of a file that is no qcow2. Throws what open(2) and read(2) do. */
export async function referencesOf(file: string): Promise<References> {
  const header = await startOf(file);
  if (header.length < V2_HEADER_BYTES || header.readUInt32BE(0) !== QCOW2_MAGIC) {
    return { backing: [], dataFiles: [], relativeData: [], isDataRaw: false, isEncrypted: false, internalSnapshots: 0 };
  }
  const folder = dirname(file);
  const offset = Number(header.readBigUInt64BE(8));
  const length = header.readUInt32BE(16);
  const hasName = offset !== 0 && length !== 0 && length <= MAX_NAME_BYTES && offset + length <= header.length;
  const backingName = hasName ? header.toString('utf8', offset, offset + length) : undefined;
  const [backingFormat] = extensions(header, EXTENSION_BACKING_FORMAT);
  const dataNames = extensions(header, EXTENSION_DATA_FILE).flatMap(pathsIn);
  return {
    ...defined({ backingName, backingFormat }),
    backing: backingName === undefined ? [] : pathsIn(backingName).map((path) => resolve(folder, path)),
    dataFiles: dataNames.map((path) => resolve(folder, path)),
    relativeData: dataNames.filter((path) => !isAbsolute(path)),
    isDataRaw: hasAutoclear(header, AUTOCLEAR_DATA_RAW),
    isEncrypted: header.readUInt32BE(32) !== 0,
    internalSnapshots: header.readUInt32BE(60),
  };
}

/** Headers of version 2 have no such bits. */
function hasAutoclear(header: Buffer, bit: number): boolean {
  if (header.readUInt32BE(4) < 3 || header.length < AUTOCLEAR_OFFSET + 4) return false;
  return (header.readUInt32BE(AUTOCLEAR_OFFSET) & bit) !== 0;
}

/** Why the layer must not be merged and removed, for people; undefined if it may be. */
export async function whyNotDropped(file: string): Promise<string | undefined> {
  const { internalSnapshots } = await referencesOf(file);
  if (internalSnapshots === 0) return undefined;
  const message = `${file} holds ${internalSnapshots} internal snapshots (savevm, virsh snapshot-create)`;
  return `${message}, which no merge keeps: delete them first`;
}

/** The backing file a qcow2 header names, made absolute; undefined if the file is no qcow2, or names no one file. */
export async function backingOf(file: string): Promise<string | undefined> {
  const { backingName } = await referencesOf(file);
  const backing = backingName === undefined ? undefined : parseImageName(withoutProtocol(backingName)).file;
  return backing === undefined ? undefined : resolve(dirname(file), backing);
}

async function startOf(file: string): Promise<Buffer> {
  const handle = await open(file, 'r');
  try {
    const read = async (size: number): Promise<Buffer> => {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(size), 0, size, 0);
      return buffer.subarray(0, bytesRead);
    };
    const start = await read(HEADER_BYTES);
    const clusterBits = start.length < V2_HEADER_BYTES ? 0 : start.readUInt32BE(20);
    const clusterBytes = 2 ** Math.min(clusterBits, MAX_CLUSTER_BITS);
    if (clusterBytes <= HEADER_BYTES || start.readUInt32BE(0) !== QCOW2_MAGIC) return start;
    return await read(clusterBytes);
  } finally {
    await handle.close();
  }
}

/** The texts of the header's extensions of that type. */
function extensions(header: Buffer, wanted: number): string[] {
  const texts: string[] = [];
  let at = header.readUInt32BE(4) === 2 ? V2_HEADER_BYTES : header.readUInt32BE(100);
  while (at + 8 <= header.length) {
    const type = header.readUInt32BE(at);
    const length = header.readUInt32BE(at + 4);
    if (type === 0 || at + 8 + length > header.length) break;
    if (type === wanted) texts.push(header.toString('utf8', at + 8, at + 8 + length));
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return texts;
}

// A plain name is a path itself; `json:{...}` holds the names of files somewhere in it.
function pathsIn(name: string): string[] {
  const names = name.startsWith('json:') ? filenamesIn(parsed(name.slice('json:'.length))) : [name];
  return names.map(withoutProtocol);
}

function withoutProtocol(name: string): string {
  return name.replace(/^(file|host_device):/, '');
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function filenamesIn(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, member]) =>
    typeof member === 'string' && /(^|\.)filename$/.test(key) ? [member] : filenamesIn(member),
  );
}
