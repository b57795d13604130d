// `fsfreeze-snapshot revert RUN`: the volumes back to the cut. What was written since is lost, so it is asked for.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Confirm } from '../../confirm.js';
import { CutError, UnreachableError } from '../../errors.js';
import { isHeld } from '../../snapshot/journal.js';
import type { SnapshotMachine } from '../../snapshot/machine.js';
import { findRun } from './runs.js';

const RELEASE_LIMIT_MS = 60_000;
const STEP_MS = 50;

export interface Reverted {
  readonly mountpoint: string;
  readonly snapshot: string;
  readonly when: 'begun' | 'at-next-activation';
}

/** Throws an UnreachableError if there is no such run, or one of its volumes cannot be reverted; a CutError if it fails. */
export async function revertRun(machine: SnapshotMachine, run: string, confirm: Confirm): Promise<readonly Reverted[]> {
  const found = findRun(machine, run);
  if (found.state === 'making' || found.lost !== undefined)
    throw new UnreachableError(
      'E_PROVIDER',
      `${run} cannot be reverted: ${found.lost ?? 'its snapshots are not made yet'}`,
    );
  const steps = found.snapshots.map((one) => {
    const provider = machine.options.providers.find(({ name }) => name === one.provider);
    return { ...one, provider, revert: provider?.revert?.bind(provider) };
  });
  const unable = steps.find(({ revert }) => revert === undefined);
  if (steps.length === 0 || unable !== undefined)
    throw new UnreachableError('E_PROVIDER', `${unable?.name ?? run} cannot be reverted: expected a snapshot of LVM`);
  const places = steps.map(({ of }) => of).join(', ');
  const question = `Everything written to ${places} since ${found.begun} will be LOST. Go on?`;
  if (!(await confirm(question))) throw new UnreachableError('E_DECLINED', 'not reverted: the answer was no');
  if (found.isHeld) {
    machine.journal.update({ ...found, state: 'reverting' });
    process.kill(found.holder.pid, 'SIGTERM');
    for (let waitedMs = 0; waitedMs < RELEASE_LIMIT_MS && isHeld(found); waitedMs += STEP_MS) await sleep(STEP_MS);
    if (isHeld(found))
      throw new CutError('E_IN_USE', `the holder of ${run}, process ${found.holder.pid}, does not let go`);
  }
  const results: Reverted[] = [];
  for (const { name, of, revert } of steps)
    if (revert !== undefined) results.push({ mountpoint: of, snapshot: name, when: await revert({ run, name }) });
  machine.journal.forget(run);
  return results;
}

/** Rows for people. */
export function describeRevert(results: readonly Reverted[]): string[] {
  return results.map(({ mountpoint, snapshot, when }) =>
    when === 'begun'
      ? `${mountpoint}: goes back to ${snapshot} (lvs shows how far)`
      : `${mountpoint}: goes back to ${snapshot} as soon as it is unmounted and activated anew, at the latest by a reboot`,
  );
}
