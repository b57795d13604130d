// A set from its plan to its removal, whatever is done with it meanwhile: guarded by a keeper, watched for room, noted.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describeError } from '../errors.js';
import { startKeeper } from './keeper.js';
import type { RunRecord } from './journal.js';
import type { SnapshotMachine } from './machine.js';
import type { SetPlan } from './planner.js';
import type { Snapshot } from './providers/provider.js';
import { unmountAll } from './shown-tree.js';
import { removeAll, takeSet, type TakenSet, type TakeRequest } from './snapshot-set.js';
import { watchSnapshots } from './watch.js';

export interface HeldSet {
  readonly taken: TakenSet;
  /** The place at which a snapshot is mounted first; there, and empty. */
  readonly stage: (place: number) => string;
  /** Notes more of the run, before it is done. */
  readonly note: (more: Pick<RunRecord, 'command'> | Pick<RunRecord, 'mounts'> | Pick<RunRecord, 'lost'>) => void;
}

export interface Use {
  /** Why the set was lost while it was used. */
  readonly lost?: string;
  /** Why something of it is left; gc removes it. */
  readonly left?: string;
}

/**
 * Takes the set, has it used, removes it. `onLost` is called while it is used, once. Throws what takeSet() does, and what
 * `use` does, after the removal.
 */
export async function withSet<T>(
  machine: SnapshotMachine,
  plan: SetPlan,
  request: TakeRequest,
  use: (held: HeldSet, onLost: (act: (reason: string) => void) => void) => Promise<T>,
): Promise<Use & { readonly result: T }> {
  const { journal, options } = machine;
  const keeper = startKeeper(options.self, plan.run);
  let isReverting = false;
  try {
    const taken = await takeSet(plan, request, journal, { run: options.run });
    const folder = journal.folderOf(plan.run);
    const stage = (place: number): string => join(folder, String(place));
    for (const place of taken.mountable.keys()) mkdirSync(stage(place));
    let record = taken.record;
    const note: HeldSet['note'] = (more) => {
      record = { ...record, ...more };
      // Whoever has it let go meanwhile has noted that.
      const state = journal.read(plan.run)?.state;
      journal.update(state === 'reverting' || state === 'ending' ? { ...record, state } : record);
    };
    let whenLost: (reason: string) => void = () => undefined;
    let lostEarly: string | undefined;
    const watch = watchSnapshots(plan.snapshots, {
      onNote: options.note,
      onLost: (reason) => {
        options.note(reason);
        lostEarly = reason;
        note({ lost: reason });
        whenLost(reason);
      },
    });
    let result: T;
    let lost: string | undefined;
    let left: string | undefined;
    let isUsed = false;
    try {
      result = await use({ taken, stage, note }, (act) => {
        whenLost = act;
        if (lostEarly !== undefined) act(lostEarly);
      });
      isUsed = true;
    } finally {
      lost = await watch.end();
      isReverting = journal.read(plan.run)?.state === 'reverting';
      if (!isReverting) journal.update({ ...record, state: 'ending' });
      left = await removed(machine, isReverting ? [] : plan.snapshots, record.mounts);
      if (left === undefined && !isReverting) journal.settle(record);
      if (!isUsed && left !== undefined) options.note(`${left} (fsfreeze-snapshot gc removes it)`);
    }
    return { result, ...(lost === undefined ? {} : { lost }), ...(left === undefined ? {} : { left }) };
  } finally {
    // What is noted still is the keeper's to remove, unless somebody merges it.
    const state = journal.read(plan.run)?.state;
    if (isReverting || state === undefined || state === 'lost') await keeper.dismiss();
    else keeper.leave();
  }
}

async function removed(
  machine: SnapshotMachine,
  snapshots: readonly Snapshot[],
  mounts: readonly string[],
): Promise<string | undefined> {
  try {
    await unmountAll(mounts, machine.options.run);
    await removeAll(snapshots);
    return undefined;
  } catch (error) {
    return describeError(error);
  }
}
