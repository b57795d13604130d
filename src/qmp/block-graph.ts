// Reads which disks a VM has: device -> format node -> file, and how the guest knows each (serial, PCI address), so that the
// host's disks match those of guest-get-fsinfo. One odd disk is no failure: it says what is wrong with it. Specification:
// QEMU qapi/block-core.json. Seen on 7.2: query-block hides implicit filters, but not throttle and the like. Only 10.1 and
// later name a node's children.
import { posix } from 'node:path';
import { defined } from '../defined.js';
import { BridgeError } from '../errors.js';
import type { Monitor } from './monitor.js';
import { runQmp, type BlockNode } from './commands.js';
import { readChain, type Encryption, type ImageLayer } from './image-info.js';
import { imageFile, protocols } from './image-name.js';
import { deviceTypeOf, isShared, pciAddressOf, serialOf } from './qdev.js';
import { hasCommand } from './schema.js';

export { imageFile } from './image-name.js';

export interface VmDisk {
  /** Name of the drive in QEMU (`-drive id=`); empty for one made by -blockdev. */
  readonly device: string;
  /** QOM path of the device in the guest; absent if no device uses the drive. */
  readonly qdev?: string;
  /** QEMU's model of it: `virtio-blk-device`, `scsi-generic`, ... */
  readonly model?: string;
  /** The id given to the device, else the last part of its path: for people and for `--disk`. */
  readonly id: string;
  readonly serial?: string;
  /** `DDDD:BB:SS.F`. A disk behind a controller has the controller's. */
  readonly pciAddress?: string;
  /** The node the device uses: a format node, or a filter above one. */
  readonly rootNode: string;
  /** The node whose file holds the data: what a snapshot goes on top of. */
  readonly node: string;
  readonly format: string;
  /** As QEMU has it: may be relative to QEMU's working directory, or no local file at all. */
  readonly file: string;
  /** QEMU's name of the image: the file, or `json:{...}` where the file alone would not give the same bytes. */
  readonly name: string;
  readonly virtualSize: number;
  readonly readOnly: boolean;
  readonly removable: boolean;
  readonly cache: { readonly direct: boolean; readonly noFlush: boolean };
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  /** The layers below `node`, nearest first. */
  readonly below: readonly ImageLayer[];
  /** The files of `below`. */
  readonly backingFiles: readonly string[];
  /** External data files of `node` and of the layers below it; may be relative to QEMU's working directory. */
  readonly dataFiles: readonly string[];
  /** How `node` is encrypted. */
  readonly encryption?: Encryption;
  /** The VM's owner lets others write to it at the same time (`share-rw`, libvirt's `<shareable/>`). */
  readonly shared: boolean;
  /** Why its part of the block graph is not understood; `node` is the root node then. */
  readonly trouble?: string;
}

/** Filters a user may have put above the format node. */
const filters = ['throttle', 'copy-on-read', 'copy-before-write', 'compress', 'blkdebug'];

/** All drives of the VM, in QEMU's order. Throws what `runQmp` does. */
export async function readDisks(client: Monitor): Promise<VmDisk[]> {
  const devices = await runQmp(client, 'query-block', {});
  const nodes = await readNodes(client);
  const disks: VmDisk[] = [];
  for (const { device, qdev, removable, inserted } of devices) {
    if (inserted === undefined) continue;
    const rootNode = nodeName(inserted);
    const { node, trouble } = await formatNode(client, inserted, nodes);
    const { below, dataFiles, encryption } = readChain(inserted.image, node.image);
    disks.push({
      device,
      ...(await guestDevice(client, device, qdev)),
      rootNode,
      node: nodeName(node),
      // Without a format node above it a protocol node is a raw disk: QEMU needs none, and newer libvirt is said to make
      // none (avocado-vt #3952, "raw format elimination").
      format: protocols.includes(node.drv) ? 'raw' : node.drv,
      file: imageFile(node.image.filename),
      name: node.image.filename,
      virtualSize: node.image['virtual-size'],
      readOnly: inserted.ro,
      removable,
      cache: { direct: node.cache.direct, noFlush: node.cache['no-flush'] },
      detectZeroes: node.detect_zeroes,
      below,
      backingFiles: below.map(({ file }) => file),
      dataFiles,
      ...defined({ encryption, trouble }),
    });
  }
  return disks;
}

type GuestDevice = Pick<VmDisk, 'id' | 'qdev' | 'model' | 'serial' | 'pciAddress' | 'shared'>;

async function guestDevice(client: Monitor, drive: string, qdev: string | undefined): Promise<GuestDevice> {
  if (qdev === undefined || qdev === '') return { id: drive, shared: false };
  const path = qomPath(qdev);
  const model = await deviceTypeOf(client, path);
  const serial = await serialOf(client, path);
  const pciAddress = await pciAddressOf(client, path);
  return {
    id: deviceId(path),
    qdev: path,
    ...defined({ model, serial, pciAddress }),
    shared: await isShared(client, path),
  };
}

/**
 * Names of the nodes that have a file open in a format. `isIt` tells the file by any of its names. There may be several:
 * parts of one file may be disks of their own.
 */
export function nodesOfFile(nodes: Iterable<BlockNode>, isIt: (name: string) => boolean, format: string): string[] {
  const open = [...nodes].filter(({ image }) => isIt(imageFile(image.filename)));
  const inFormat = open.filter(({ drv }) => drv === format);
  // A raw disk may have no format node, and the overlay of an encrypted disk has none until it is formatted.
  const found = inFormat.length > 0 ? inFormat : open.filter(({ drv }) => protocols.includes(drv));
  return found.map(nodeName);
}

/** Every named node of the graph, by name. */
export async function readNodes(client: Monitor): Promise<ReadonlyMap<string, BlockNode>> {
  const nodes = await runQmp(client, 'query-named-block-nodes', { flat: true });
  return new Map(nodes.map((node) => [nodeName(node), node]));
}

interface FormatNode {
  readonly node: BlockNode;
  readonly trouble?: string;
}

/** The format node of a drive; its root node, with what is wrong, where none is found. */
async function formatNode(
  client: Monitor,
  root: BlockNode,
  nodes: ReadonlyMap<string, BlockNode>,
): Promise<FormatNode> {
  // Several images in one: which of them an overlay could lie on has no answer.
  if (root.drv === 'quorum' || root.drv === 'blkverify')
    return { node: root, trouble: `it is several images in one (${root.drv})` };
  if (!filters.includes(root.drv)) return { node: root };
  try {
    return { node: await formatNodeBelow(client, nodeName(root), nodes) };
  } catch (error) {
    if (!(error instanceof BridgeError) || error.code !== 'E_BLOCK_GRAPH') throw error;
    return { node: root, trouble: error.message };
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
