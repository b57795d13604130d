// `fsfreeze-snapshot revert RUN`: the volumes back to the cut. What was written since is lost, so it is asked for.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Confirm } from '../../confirm.js';
import { CutError, describeError, UnreachableError } from '../../errors.js';
import { isHeld } from '../../snapshot/journal.js';
import type { SnapshotMachine } from '../../snapshot/machine.js';
import type { Revert } from '../../snapshot/providers/provider.js';
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
  // All are looked at before the first goes back: half a revert would be worse than none.
  const planned = async ({ provider: name, name: snapshot }: { provider: string; name: string }): Promise<Revert> => {
    const provider = machine.options.providers.find((one) => one.name === name);
    if (provider?.planRevert === undefined)
      throw new UnreachableError('E_PROVIDER', `${snapshot} cannot be reverted: expected a snapshot of LVM`);
    return await provider.planRevert({ run, name: snapshot });
  };
  const steps = await Promise.all(found.snapshots.map(async (one) => ({ ...one, revert: await planned(one) })));
  if (steps.length === 0) throw new UnreachableError('E_PROVIDER', `${run} cannot be reverted: nothing of it was cut`);
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
    try {
      results.push({ mountpoint: of, snapshot: name, when: await revert() });
      const left = found.snapshots.filter((one) => results.every(({ snapshot }) => snapshot !== one.name));
      // Should the next one fail: the same command takes back the rest.
      machine.journal.update({ ...found, state: 'reverting', snapshots: left });
    } catch (cause) {
      if (results.length === 0) throw cause;
      const others = results.map(({ mountpoint }) => mountpoint).join(', ');
      throw new CutError(
        'E_CUT',
        `${of}: ${describeError(cause)}; ${others} went back all the same (fsfreeze-snapshot revert ${run} goes on)`,
        { cause },
      );
    }
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
