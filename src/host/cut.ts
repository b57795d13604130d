// The cut: all disks in one QMP transaction. QEMU drains all I/O first and rolls everything back on any error. This is
// the only thing sent to the monitor between freeze and thaw. Specification: QEMU qapi/transaction.json, facts 4.1.
import { BridgeError, CutError, describeError } from '../errors.js';
import { readDisks } from '../qmp/block-graph.js';
import type { QmpClient } from '../qmp/client.js';
import { runQmp } from '../qmp/commands.js';
import { monotonicMs } from './clock.js';
import type { Marks } from './manifest.js';
import type { Overlay } from './overlays.js';

/**
 * Sends the transaction and stamps `marks`. Throws a CutError; its outcome is 'unknown' if QEMU's answer did not come
 * (ask `cutState` once the guest is thawed).
 */
export async function cutDisks(
  client: QmpClient,
  overlays: readonly Overlay[],
  timeoutMs: number,
  marks: Marks,
): Promise<void> {
  const actions = overlays.map(({ disk, node }) => ({
    type: 'blockdev-snapshot' as const,
    data: { node: disk.node, overlay: node },
  }));
  marks.cutSentMs = monotonicMs();
  try {
    await runQmp(client, 'transaction', { actions }, { timeoutMs });
  } catch (cause) {
    const outcome = cause instanceof BridgeError ? cause.outcome : 'none';
    throw new CutError('E_CUT', `the cut of ${overlays.length} disks failed: ${describeError(cause)}`, {
      cause,
      outcome,
    });
  } finally {
    marks.cutAnsweredMs = monotonicMs();
  }
}

/**
 * What became of a cut whose answer was lost: the transaction is all or nothing. Waits for QEMU up to `timeoutMs`.
 * Throws what the monitor throws; then nobody knows.
 */
export async function cutState(
  client: QmpClient,
  nodes: readonly string[],
  timeoutMs: number,
): Promise<'cut' | 'not cut'> {
  // Answered only after the transaction: the monitor runs one command after the other.
  await runQmp(client, 'query-status', {}, { timeoutMs });
  const inUse = new Set((await readDisks(client)).map(({ node }) => node));
  const cut = nodes.filter((node) => inUse.has(node));
  if (cut.length === 0) return 'not cut';
  if (cut.length === nodes.length) return 'cut';
  throw new CutError('E_CUT', `the VM writes to ${cut.length} of ${nodes.length} overlays: ${cut.join(', ')}`, {
    outcome: 'unknown',
  });
}
