// The snapshots below a folder, until the caller lets go: dragonsdawn-snapshot's way.
import { CutError } from '../errors.js';
import { withSet } from './held-set.js';
import type { RunRecord } from './journal.js';
import type { SnapshotMachine } from './machine.js';
import type { SetPlan } from './planner.js';
import { checkTarget, mountSteps } from './shown-tree.js';
import type { TakeRequest } from './snapshot-set.js';
import { shownTree } from './tree.js';

export interface TreeRequest extends Omit<TakeRequest, 'kind' | 'target'> {
  readonly target: string;
  readonly ttlMs?: number;
  /** A signal came. */
  readonly abort: AbortSignal;
  /** All is mounted. */
  readonly onReady: (record: RunRecord) => void;
}

/**
 * `released`: settles when the caller lets go. Throws a CutError if a snapshot was lost meanwhile, its time was over, a
 * signal came that was not release's, or something is left; an UnreachableError if the folder cannot be used; and what planning and taking throw.
 */
export async function runTree(
  machine: SnapshotMachine,
  plan: SetPlan,
  request: TreeRequest,
  released: Promise<void>,
): Promise<void> {
  const { ttlMs, abort } = request;
  const interrupted = new Promise<'signal'>((resolve) => {
    abort.addEventListener('abort', () => {
      resolve('signal');
    });
  });
  const target = checkTarget(request.target);
  const { lost, left } = await withSet(machine, plan, { ...request, target, kind: 'tree' }, async (held, onLost) => {
    const { mountable, record } = held.taken;
    const mounts: string[] = [];
    await mountSteps(
      shownTree({ sources: plan.sources, mountable, stage: held.stage }, target),
      machine.options.run,
      (at) => {
        if (abort.aborted) throw new CutError('E_INTERRUPTED', 'interrupted: the tree was not shown');
        mounts.push(at);
        held.note({ mounts: [...mounts] });
      },
    );
    if (abort.aborted) throw new CutError('E_INTERRUPTED', 'interrupted: the tree was not shown');
    request.onReady(record);
    const ends: Promise<void>[] = [released];
    ends.push(
      new Promise((resolve) => {
        onLost(() => {
          resolve();
        });
      }),
    );
    let timer: NodeJS.Timeout | undefined;
    const over = new Promise<'over'>((resolve) => {
      if (ttlMs === undefined) return;
      timer = setTimeout(() => {
        resolve('over');
      }, ttlMs);
    });
    const first = await Promise.race([...ends, over, interrupted]);
    clearTimeout(timer);
    // Whoever releases one that is let go by name has noted that before.
    const isReleased = request.isDetached === true && machine.journal.read(plan.run)?.state === 'ending';
    if (first === 'signal' && !isReleased)
      throw new CutError('E_INTERRUPTED', 'a signal came: the tree was taken away before its caller let go');
    if (first === 'over') throw new CutError('E_DEADLINE', `nobody let go within ${(ttlMs ?? 0) / 1000} s (--ttl)`);
  });
  if (lost !== undefined) throw new CutError('E_SNAPSHOT_LOST', `what was read is not to be relied on: ${lost}`);
  if (left !== undefined) throw new CutError('E_IN_USE', `${left} (fsfreeze-snapshot gc removes it)`);
}
