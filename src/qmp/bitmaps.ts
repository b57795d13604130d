// Reads and removes dirty bitmaps: QEMU's records of what was written to a node since they were added. Specification:
// QEMU docs/interop/bitmaps.rst, qapi/block-core.json.
import { BridgeError } from '../errors.js';
import { nodesOfFile, readNodes, type VmDisk } from './block-graph.js';
import { runQmp, type BlockNode, type DirtyBitmap } from './commands.js';
import type { Monitor } from './monitor.js';

/** Throws what `runQmp` does, and a BridgeError `E_BLOCK_GRAPH` if there is no such node. */
export async function readNode(client: Monitor, name: string): Promise<BlockNode> {
  const node = (await readNodes(client)).get(name);
  if (node === undefined) throw new BridgeError('E_BLOCK_GRAPH', `${name} is not in the block graph`);
  return node;
}

/** True if the node stores bitmaps with its image: only qcow2 of version 3 does. */
export function keepsBitmaps({ drv, image }: Pick<BlockNode, 'drv' | 'image'>): boolean {
  const data: unknown = image['format-specific']?.data;
  const isOld = typeof data === 'object' && data !== null && 'compat' in data && data.compat === '0.10';
  return drv === 'qcow2' && !isOld;
}

/** The names of the bitmaps on these layers. */
export function bitmapsIn(nodes: ReadonlyMap<string, BlockNode>, layers: VmDisk['below']): string[] {
  return layers
    .flatMap(({ file, format }) => nodesOfFile(nodes.values(), (image) => image === file, format))
    .flatMap((node) => nodes.get(node)?.['dirty-bitmaps'] ?? [])
    .flatMap(({ name }) => name ?? []);
}

/** Why what the bitmap says cannot be relied on, for people; undefined if it can. */
export function whyNotTrusted({ recording, inconsistent, busy }: DirtyBitmap): string | undefined {
  if (inconsistent) return 'QEMU ended without storing it (it was killed, or the host went down)';
  // It may have missed writes since it was switched off, and does not say so.
  if (!recording) return 'somebody switched it off';
  return busy ? 'another job or an export uses it' : undefined;
}

/**
 * Removes the bitmaps that are `wanted`, on whatever node they are; gives the names of those that are in use. One on a
 * layer that is only read stays: it is the past of that layer.
 */
export async function removeBitmaps(client: Monitor, wanted: (name: string) => boolean): Promise<string[]> {
  const inUse: string[] = [];
  for (const [node, { ro, 'dirty-bitmaps': bitmaps }] of await readNodes(client)) {
    for (const { name, busy } of bitmaps) {
      if (name === undefined || ro || !wanted(name)) continue;
      if (busy) inUse.push(name);
      else await runQmp(client, 'block-dirty-bitmap-remove', { node, name });
    }
  }
  return inUse;
}
