// Where the layers of a set are in the VM's block graph now. Found by file, since a VM that was started anew from an
// overlay has other names for the same nodes.
import { nodeOfFile, nodesOfFile, readDisks, readNodes, type VmDisk } from '../../qmp/block-graph.js';
import type { Monitor } from '../../qmp/monitor.js';
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
  /** The overlay's node, if QEMU has it open. */
  readonly overlayNode: string | undefined;
  readonly baseNode: string | undefined;
}

/** Per disk of the set, in its order. */
export async function layersOf(monitor: Monitor, manifest: Manifest): Promise<Layer[]> {
  const disks = await readDisks(monitor);
  const nodes = await readNodes(monitor);
  const baseNodeOf = ({ node, file, format }: ManifestDisk['base']): string | undefined => {
    const found = nodesOfFile(nodes.values(), file, format);
    return found.length === 1 ? found[0] : found.find((name) => name === node);
  };
  return manifest.disks.map((disk) => {
    const overlayNode = nodeOfFile(nodes.values(), disk.overlay.file, disk.overlay.format);
    const active = overlayNode === undefined ? undefined : disks.find(({ node }) => node === overlayNode);
    const onBase = disks.find(({ file }) => file === disk.base.file);
    const below = disks.some((vmDisk) => vmDisk.backingFiles.includes(disk.overlay.file));
    const place = active !== undefined ? 'active' : below ? 'below' : overlayNode !== undefined ? 'loaded' : 'unused';
    return {
      disk,
      place,
      vmDisk: active ?? onBase,
      overlayNode,
      baseNode: baseNodeOf(disk.base),
    };
  });
}
