// Lets dirty bitmaps follow the guest over a cut and back. Backup programs keep them to know what changed since their
// last backup. QEMU leaves a bitmap on the layer it was made on, where nobody finds it while the guest writes to
// another layer. So each is copied to the overlay in the cut's own transaction, with all it holds: one that began empty
// would let an incremental backup miss what was written before the cut. The base's own bitmaps are not touched. They
// count by themselves what a merge writes, so that afterwards they hold all that changed, and more if a backup was made
// meanwhile. Only what was made on the overlay itself is copied to the base. libvirt does the same for its domains.
// Specification: QEMU docs/interop/bitmaps.rst.
import { keepsBitmaps, readNode } from '../../qmp/bitmaps.js';
import type { QmpClient } from '../../qmp/client.js';
import { runQmp, type BlockNode, type TransactionAction } from '../../qmp/commands.js';

export interface FollowingBitmaps {
  /** To be sent with the cut, after the overlay is laid on its base: what is recorded there is recorded here, too. */
  readonly actions: readonly TransactionAction[];
  /** Those that record, and cannot be copied since a job or an export uses them. */
  readonly busy: readonly string[];
}

export async function bitmapsToOverlay(client: QmpClient, from: string, to: string): Promise<FollowingBitmaps> {
  const source = await readNode(client, from);
  const used = source['dirty-bitmaps'].filter(
    ({ recording, busy, inconsistent }) => recording && busy && !inconsistent,
  );
  return { actions: follow(source, [], from, to, true), busy: used.flatMap(({ name }) => name ?? []) };
}

/**
 * Copies to the base what only the overlay has. Call it when all data is copied, and both take what the guest writes.
 */
export async function bitmapsToBase(client: QmpClient, overlay: string, base: string): Promise<void> {
  const target = await readNode(client, base);
  const actions = follow(await readNode(client, overlay), target['dirty-bitmaps'], overlay, base, keepsBitmaps(target));
  if (actions.length > 0) await runQmp(client, 'transaction', { actions });
}

// A bitmap that does not record is the past of the layer it is on, a busy one cannot be read, and an inconsistent one says
// nothing: none of them is copied. Without it its program makes a full backup, which is right.
function follow(
  source: BlockNode,
  there: BlockNode['dirty-bitmaps'],
  from: string,
  to: string,
  canPersist: boolean,
): TransactionAction[] {
  return source['dirty-bitmaps'].flatMap(({ name, granularity, recording, busy, persistent, inconsistent }) => {
    if (name === undefined || !recording || busy || inconsistent) return [];
    if (there.some((other) => other.name === name)) return [];
    return [
      {
        type: 'block-dirty-bitmap-add' as const,
        data: { node: to, name, granularity, persistent: persistent && canPersist },
      },
      {
        type: 'block-dirty-bitmap-merge' as const,
        data: { node: to, target: name, bitmaps: [{ node: from, name }] },
      },
    ];
  });
}
