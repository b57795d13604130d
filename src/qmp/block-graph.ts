// Which disks a VM has: device -> format node -> file, and how the guest knows each (serial, PCI address), so that the
// host's disks match those of guest-get-fsinfo. Only reads. Specification: QEMU qapi/block-core.json; facts on 7.2:
// query-block hides implicit filters but not throttle and the like; only 10.1 and later name a node's children.
import { posix } from 'node:path';
import * as v from 'valibot';
import { BridgeError } from '../errors.js';
import type { Monitor } from './monitor.js';
import { runQmp, type BlockNode } from './commands.js';
import { pciAddressOf, serialOf } from './qdev.js';

export interface VmDisk {
  /** Name of the drive in QEMU (`-drive id=`); empty for one made by -blockdev. */
  readonly device: string;
  /** QOM path of the device in the guest; absent if no device uses the drive. */
  readonly qdev?: string;
  /** The id given to the device, else the last part of its path: for people and for `--disk`. */
  readonly id: string;
  readonly serial?: string;
  /** `DDDD:BB:SS.F`; of its controller, if the disk is behind one. */
  readonly pciAddress?: string;
  /** The node the device uses: a format node, or a filter above one. */
  readonly rootNode: string;
  /** The node whose file holds the data: what a snapshot goes on top of. */
  readonly node: string;
  readonly format: string;
  /** As QEMU has it: may be relative to QEMU's working directory, or no local file at all. */
  readonly file: string;
  readonly virtualSize: number;
  readonly readOnly: boolean;
  readonly removable: boolean;
  readonly cache: { readonly direct: boolean; readonly noFlush: boolean };
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  /** Files of the layers below `node`, nearest first. */
  readonly backingFiles: readonly string[];
}

/**
 * Nodes that give a local file's bytes as they are. With nothing above it such a node is a raw disk: QEMU needs no raw
 * format node, and newer libvirt is said to make none (avocado-vt #3952, "raw format elimination").
 */
const protocols = ['file', 'host_device'];

/** Filters a user may have put above the format node. */
const filters = ['throttle', 'copy-on-read', 'copy-before-write', 'compress', 'blkdebug', 'blkverify', 'quorum'];

/** All drives of the VM, in QEMU's order. Throws what `runQmp` does, and a BridgeError for a graph not understood. */
export async function readDisks(client: Monitor): Promise<VmDisk[]> {
  const devices = await runQmp(client, 'query-block', {});
  const nodes = await readNodes(client);
  const disks: VmDisk[] = [];
  for (const { device, qdev, removable, inserted } of devices) {
    if (inserted === undefined) continue;
    const rootNode = nodeName(inserted);
    const node = filters.includes(inserted.drv) ? await formatNodeBelow(client, rootNode, nodes) : inserted;
    const path = qdev === undefined || qdev === '' ? undefined : qomPath(qdev);
    const serial = path === undefined ? undefined : await serialOf(client, path);
    const pciAddress = path === undefined ? undefined : await pciAddressOf(client, path);
    disks.push({
      device,
      id: path === undefined ? device : deviceId(path),
      ...(path === undefined ? {} : { qdev: path }),
      ...(serial === undefined ? {} : { serial }),
      ...(pciAddress === undefined ? {} : { pciAddress }),
      rootNode,
      node: nodeName(node),
      format: protocols.includes(node.drv) ? 'raw' : node.drv,
      file: imageFile(node.image.filename),
      virtualSize: node.image['virtual-size'],
      readOnly: inserted.ro,
      removable,
      cache: { direct: node.cache.direct, noFlush: node.cache['no-flush'] },
      detectZeroes: node.detect_zeroes,
      backingFiles: backingFiles(inserted.image),
    });
  }
  return disks;
}

/**
 * The node that has a file open in a format; `isIt` knows the file by any of its names. Undefined if there is none. Throws
 * a BridgeError if there are several.
 */
export function nodeOfFile(
  nodes: Iterable<BlockNode>,
  isIt: (name: string) => boolean,
  format: string,
): string | undefined {
  const open = [...nodes].filter(({ image }) => isIt(imageFile(image.filename)));
  const inFormat = open.filter(({ drv }) => drv === format);
  const found =
    inFormat.length === 0 && format === 'raw' ? open.filter(({ drv }) => protocols.includes(drv)) : inFormat;
  if (found.length > 1)
    throw new BridgeError('E_BLOCK_GRAPH', `QEMU has ${found[0]?.image.filename ?? ''} open ${found.length} times`);
  return found[0]?.['node-name'];
}

/** Every named node of the graph, by name. */
export async function readNodes(client: Monitor): Promise<ReadonlyMap<string, BlockNode>> {
  const nodes = await runQmp(client, 'query-named-block-nodes', { flat: true });
  return new Map(nodes.map((node) => [nodeName(node), node]));
}

const pseudoNameSchema = v.object({ file: v.object({ driver: v.literal('file'), filename: v.string() }) });

/**
 * The image behind QEMU's name of it. `json:{...}` stands for options a plain name cannot express, a backing file other
 * than the header's for instance; the file is in it. Other names come back as they are.
 */
export function imageFile(name: string): string {
  if (!name.startsWith('json:')) return name;
  try {
    const parsed = v.safeParse(pseudoNameSchema, JSON.parse(name.slice('json:'.length)));
    return parsed.success ? parsed.output.file.filename : name;
  } catch {
    // QEMU cuts names at 4095 bytes.
    return name;
  }
}

async function formatNodeBelow(
  client: Monitor,
  root: string,
  nodes: ReadonlyMap<string, BlockNode>,
): Promise<BlockNode> {
  const child = await childFinder(client, nodes);
  let name: string | undefined = root;
  // The graph has no cycles; the bound is for a monitor that lies.
  for (let depth = 0; depth < 64 && name !== undefined; depth++) {
    const node = nodes.get(name);
    if (node !== undefined && !filters.includes(node.drv)) return node;
    name = child(name);
  }
  throw new BridgeError('E_BLOCK_GRAPH', `cannot find the format node below ${root} in the VM's block graph`);
}

type ChildFinder = (node: string) => string | undefined;

async function childFinder(client: Monitor, nodes: ReadonlyMap<string, BlockNode>): Promise<ChildFinder> {
  if ([...nodes.values()].some(({ children }) => children !== undefined)) {
    return (name) => nodes.get(name)?.children?.find(({ child }) => child === 'file')?.['node-name'];
  }
  if (!(await hasCommand(client, 'x-debug-query-block-graph'))) {
    throw new BridgeError('E_BLOCK_GRAPH', 'this QEMU does not tell what lies below a filter node');
  }
  const { nodes: vertices, edges } = await runQmp(client, 'x-debug-query-block-graph', {});
  return (name) => {
    const parent = vertices.find((vertex) => vertex.name === name && vertex.type === 'block-driver');
    const edge = edges.find((each) => each.parent === parent?.id && each.name === 'file');
    return vertices.find((vertex) => vertex.id === edge?.child)?.name;
  };
}

async function hasCommand(client: Monitor, command: string): Promise<boolean> {
  const schema = await runQmp(client, 'query-qmp-schema', {}, { timeoutMs: 20_000 });
  return schema.some((entry) => entry['meta-type'] === 'command' && entry.name === command);
}

// query-block nests what lies below; the flat list of nodes does not.
function backingFiles(image: { readonly 'backing-image'?: unknown }): string[] {
  const files: string[] = [];
  let below: unknown = image['backing-image'];
  while (typeof below === 'object' && below !== null) {
    if ('filename' in below && typeof below.filename === 'string') files.push(imageFile(below.filename));
    below = 'backing-image' in below ? below['backing-image'] : undefined;
  }
  return files;
}

function nodeName(node: BlockNode): string {
  const name = node['node-name'];
  if (name === undefined || name === '')
    throw new BridgeError('E_BLOCK_GRAPH', `block node without a name (${node.file})`);
  return name;
}

/** query-block gives an id for some devices, a path for others. */
function qomPath(qdev: string): string {
  return qdev.startsWith('/') ? qdev : `/machine/peripheral/${qdev}`;
}

function deviceId(path: string): string {
  const own = posix.basename(path);
  return own === 'virtio-backend' ? posix.basename(posix.dirname(path)) : own;
}
