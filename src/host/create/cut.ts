// The cut: all disks at one instant, by the VM's hypervisor. It is the only thing sent there between freeze and thaw.
import { BridgeError, CutError, describeError } from '../../errors.js';
import { monotonicMs } from '../clock.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import type { Marks } from '../sets/point-in-time.js';
import type { Overlay } from '../vm/overlay.js';

/**
 * Cuts and stamps `marks`. Throws a CutError; its outcome is 'unknown' if the answer did not come (ask `cutState` once
 * the guest is thawed).
 */
export async function cutDisks(
  hypervisor: Hypervisor,
  overlays: readonly Overlay[],
  timeoutMs: number,
  marks: Marks,
): Promise<void> {
  marks.cutSentMs = monotonicMs();
  try {
    await hypervisor.cut(overlays, timeoutMs);
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
 * What became of a cut whose answer was lost: it is all or nothing. Waits for the hypervisor up to `timeoutMs`. Throws
 * what that throws; then nobody knows.
 */
export async function cutState(
  hypervisor: Hypervisor,
  overlays: readonly Overlay[],
  timeoutMs: number,
): Promise<'cut' | 'not cut'> {
  await hypervisor.cutIsOver(timeoutMs);
  const inUse = new Set((await hypervisor.disks()).map(({ file }) => file));
  const cut = overlays.map(({ file }) => file).filter((file) => inUse.has(file));
  if (cut.length === 0) return 'not cut';
  if (cut.length === overlays.length) return 'cut';
  throw new CutError('E_CUT', `the VM writes to ${cut.length} of ${overlays.length} overlays: ${cut.join(', ')}`, {
    outcome: 'unknown',
  });
}
