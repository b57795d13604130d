// Finds where the layers of a set are in the VM's block graph now. They are found by what their files are: a VM that
// was started anew from an overlay has other names for the same nodes, and may spell their files in another way.
import { BridgeError } from '../../errors.js';
import { imageFile, nodesOfFile, readDisks, readNodes, type VmDisk } from '../../qmp/block-graph.js';
import type { BlockNode } from '../../qmp/commands.js';
import type { Monitor } from '../../qmp/monitor.js';
import { fileKey } from '../images/same-file.js';
import { imageKey } from '../images/socket-owner.js';
import type { Manifest, ManifestDisk } from './manifest.js';

/**
 * active   the guest writes to the overlay
 * below    something lies on it: another set's overlay
 * loaded   QEMU has it open, but no disk uses it
 * unused   QEMU does not know it
 */
type LayerPlace = 'active' | 'below' | 'loaded' | 'unused';

export interface Layer {
  readonly disk: ManifestDisk;
  readonly place: LayerPlace;
  /** The VM's disk that uses the overlay, else its base. */
  readonly vmDisk: VmDisk | undefined;
  /** True if `vmDisk` uses the base: nothing lies between. */
  readonly isOnBase: boolean;
  /** The overlay's node, if QEMU has it open. */
  readonly overlayNode: string | undefined;
  readonly baseNode: string | undefined;
}

/**
 * Per disk of the set, in its order. Throws what `runQmp` does, and a BridgeError if QEMU has a file open under a relative
 * name of which nobody knows where it leads: then no layer can be called unused.
 */
export async function layersOf(monitor: Monitor, manifest: Manifest): Promise<Layer[]> {
  const disks = await readDisks(monitor);
  const nodes = await readNodes(monitor);
  const files = await FileNames.of(monitor, [
    ...[...nodes.values()].map(({ image }) => imageFile(image.filename)),
    ...disks.flatMap(({ file, backingFiles }) => [file, ...backingFiles]),
  ]);
  const layers: Layer[] = [];
  for (const disk of manifest.disks) {
    const [overlay, base] = await Promise.all([fileKey(disk.overlay.file), fileKey(disk.base.file)]);
    const overlayNode = files.nodeOf(nodes, overlay, disk.overlay.format, disk.overlay.node);
    const active = overlayNode === undefined ? undefined : disks.find(({ node }) => node === overlayNode);
    const onBase = disks.find(({ file }) => files.isFile(file, base));
    const below = disks.some(({ backingFiles }) => backingFiles.some((file) => files.isFile(file, overlay)));
    const place = active !== undefined ? 'active' : below ? 'below' : overlayNode !== undefined ? 'loaded' : 'unused';
    if (place === 'unused') files.checkAllKnown(disk.overlay.file);
    layers.push({
      disk,
      place,
      vmDisk: active ?? onBase,
      isOnBase: active === undefined && onBase !== undefined,
      overlayNode,
      baseNode: files.nodeOf(nodes, base, disk.base.format, disk.base.node),
    });
  }
  return layers;
}

/**
 * `nbd://...`, `json:{...}`: not the name of a local file. The file below what has such a name has a node of its own.
 */
export const isForeign = /^[A-Za-z][A-Za-z0-9+.-]*:/;

/** The files that the names in the block graph mean. */
class FileNames {
  readonly #monitor: Monitor;
  readonly #keys: ReadonlyMap<string, string>;
  readonly #unknown: readonly string[];

  private constructor(monitor: Monitor, keys: ReadonlyMap<string, string>, unknown: readonly string[]) {
    this.#monitor = monitor;
    this.#keys = keys;
    this.#unknown = unknown;
  }

  static async of(monitor: Monitor, names: readonly string[]): Promise<FileNames> {
    const keys = new Map<string, string>();
    const unknown: string[] = [];
    for (const name of new Set(names)) {
      if (name === '' || isForeign.test(name)) continue;
      const key = await imageKey(monitor.path, name);
      if (key === undefined) unknown.push(name);
      else keys.set(name, key);
    }
    return new FileNames(monitor, keys, unknown);
  }

  isFile(name: string, key: string): boolean {
    return this.#keys.get(name) === key;
  }

  /**
   * The node that gives the file's data in this format. Where there are several, parts of one file that are disks of their
   * own, the one of that name; undefined if it is not among them.
   */
  nodeOf(nodes: ReadonlyMap<string, BlockNode>, key: string, format: string, named?: string): string | undefined {
    const found = nodesOfFile(nodes.values(), (name) => this.isFile(name, key), format);
    return found.length === 1 ? found[0] : found.find((name) => name === named);
  }

  checkAllKnown(file: string): void {
    const [name] = this.#unknown;
    if (name === undefined) return;
    const message = `whether the VM uses ${file} is not known: QEMU has ${name} open, and where that lies cannot be seen`;
    throw new BridgeError('E_BLOCK_GRAPH', `${message} (monitor ${this.#monitor.path})`);
  }
}
