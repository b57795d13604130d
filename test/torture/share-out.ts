// Shares runs out among guests: several at a time, since most of a run is waiting for a lease or a limit to end. Each
// guest has its keeper.
import type { GuestKind } from '../../src/testing/index.js';
import { GuestKeeper } from '../vm/faults/guest-keeper.js';

/** User-mode guests at a time where nobody says how many: measured on two processors (test/vm/faults/README.md). */
export const USUAL_JOBS = 2;

/** Guests in QEMU at a time: each keeps a processor busy while it does anything. */
const IN_QEMU = 2;

export interface Task {
  readonly kind: GuestKind;
  act(keeper: GuestKeeper): Promise<void>;
}

/** Does all of them, in no order. When one throws its guest does no more, the others go on, and it throws that at the end. */
export async function shareOut(tasks: readonly Task[], jobs: number): Promise<void> {
  const worker = async (kind: GuestKind, queue: Task[]): Promise<void> => {
    await using keeper = new GuestKeeper(kind);
    for (let task = queue.shift(); task !== undefined; task = queue.shift()) await task.act(keeper);
  };
  const workers = (kind: GuestKind, most: number): Promise<void>[] => {
    const queue = tasks.filter((task) => task.kind === kind);
    return Array.from({ length: Math.min(most, queue.length) }, async () => {
      await worker(kind, queue);
    });
  };
  const ends = await Promise.allSettled([...workers('qemu', IN_QEMU), ...workers('user-mode', jobs)]);
  const failed = ends.filter((end) => end.status === 'rejected').map(({ reason }) => reason as unknown);
  if (failed.length > 0) throw failed.length === 1 ? failed[0] : new AggregateError(failed, 'several guests failed');
}
