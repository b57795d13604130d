// The block nodes of overlays in a plain QEMU: added with `backing: null`, so that only the transaction joins each to its
// base, and checked. Facts 4.1.
import { CutError } from '../../errors.js';
import { readNodes } from '../../qmp/block-graph.js';
import type { QmpClient } from '../../qmp/client.js';
import { runQmp } from '../../qmp/commands.js';
import type { Reverter } from '../../reverter.js';
import { diskName } from './disk-choice.js';
import { overlayFailure, type Overlay } from './overlay.js';

/** Adds one, not yet in use. Throws a CutError that names the disk. */
export async function addNode(client: QmpClient, overlay: Overlay, reverter: Reverter): Promise<void> {
  const { disk, file, node } = overlay;
  reverter.push(`block node ${node}`, async () => {
    if ((await readNodes(client)).has(node)) await runQmp(client, 'blockdev-del', { 'node-name': node });
  });
  try {
    await runQmp(client, 'blockdev-add', {
      driver: 'qcow2',
      'node-name': node,
      file: { driver: 'file', 'node-name': `${node}-file`, filename: file },
      backing: null,
      // Lets the guest's discards free space in the overlay; whether it may discard is its device's setting.
      discard: 'unmap',
      'detect-zeroes': disk.detectZeroes,
      cache: { direct: disk.cache.direct, 'no-flush': disk.cache.noFlush },
    });
  } catch (cause) {
    throw overlayFailure(overlay, cause);
  }
}

/** Throws a CutError unless each is a writable qcow2 of its disk's size. */
export async function checkAdded(client: QmpClient, overlays: readonly Overlay[]): Promise<void> {
  const nodes = await readNodes(client);
  for (const { disk, node } of overlays) {
    const added = nodes.get(node);
    const size = added?.image['virtual-size'];
    if (added?.drv === 'qcow2' && !added.ro && size === disk.virtualSize) continue;
    const found = added === undefined ? 'nothing' : `${added.drv}, ${size ?? 0} bytes${added.ro ? ', read-only' : ''}`;
    throw new CutError(
      'E_OVERLAY',
      `overlay ${node} of disk ${diskName(disk)}: expected a writable qcow2 of ${disk.virtualSize} bytes, found ${found}`,
    );
  }
}

export async function nodeIsThere(client: QmpClient, node: string): Promise<boolean> {
  return (await readNodes(client)).has(node);
}
