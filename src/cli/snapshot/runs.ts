// The commands about runs that are held, or were: list, show, release, gc.
import { setTimeout as sleep } from 'node:timers/promises';
import { CutError, UnreachableError } from '../../errors.js';
import { isHeld, type RunRecord } from '../../snapshot/journal.js';
import type { SnapshotMachine } from '../../snapshot/machine.js';

const RELEASE_LIMIT_MS = 60_000;
const STEP_MS = 50;

export interface RunView extends RunRecord {
  /** False: its holder is dead, and what it left is gc's. */
  readonly isHeld: boolean;
}

export function listRuns({ journal }: SnapshotMachine): readonly RunView[] {
  return journal.runs().flatMap((run) => {
    const record = journal.read(run);
    return record === undefined ? [] : [{ ...record, isHeld: isHeld(record) }];
  });
}

/** Throws an UnreachableError if there is none of that name. */
export function findRun(machine: SnapshotMachine, run: string): RunView {
  const found = listRuns(machine).find((one) => one.run === run);
  if (found !== undefined) return found;
  throw new UnreachableError('E_NO_RUN', `no snapshots are held under the name ${run} (fsfreeze-snapshot list)`);
}

/**
 * Has the holder let go, and waits until nothing is left. Throws a CutError if something stays, or if the snapshots were
 * lost while they were read.
 */
export async function releaseRun(machine: SnapshotMachine, run: string): Promise<void> {
  const found = findRun(machine, run);
  if (found.isHeld) {
    const record = machine.journal.read(run);
    // Tells the holder that this is no signal of just anybody.
    if (record !== undefined) machine.journal.update({ ...record, state: 'ending' });
    process.kill(found.holder.pid, 'SIGTERM');
  }
  for (let waitedMs = 0; waitedMs < RELEASE_LIMIT_MS && isHeld(found); waitedMs += STEP_MS) await sleep(STEP_MS);
  if (isHeld(found))
    throw new CutError('E_IN_USE', `the holder of ${run}, process ${found.holder.pid}, does not let go`);
  const lost = machine.journal.read(run)?.lost ?? found.lost;
  const { left } = await machine.collect(run);
  const [first] = left;
  if (first !== undefined) throw new CutError('E_IN_USE', `${first.what} is left: ${first.reason}`);
  machine.journal.forget(run);
  if (lost !== undefined)
    throw new CutError('E_SNAPSHOT_LOST', `what was read of run ${run} is not to be relied on: ${lost}`);
}
