// Holding the guest: freeze with the undo registered first, the lease renewed while the tool works, the thaw sent
// whatever became of the freeze. Leaves the freezing itself to the Coordinator.
import type { FreezeReport, FreezeRequest, FreezeSession } from '../../consistency.js';
import { BridgeError, QuiesceError, StateError, ThawUnconfirmedError, describeError } from '../../errors.js';
import type { Reverter } from '../../reverter.js';
import { monotonicMs } from '../../linux/clock.js';
import type { GuestAgent } from './guest-agent.js';
import type { Marks } from '../sets/point-in-time.js';
import { thawUntilConfirmed } from './thaw-guest.js';

/** How long past the lease's end a confirmation is waited for: the guest has thawed itself by then. */
const PAST_LEASE_MS = 5000;

export interface Hold {
  /** The guest's report as of the freeze. */
  readonly report: FreezeReport;
  /** Why the guest no longer holds, if a renewal said so. */
  readonly lost: string | undefined;
  /**
   * Thaws and gives the final report, stamping `marks`. May be called again: the same report. Throws a
   * ThawUnconfirmedError if nobody confirms that the guest is thawed, even after its lease.
   */
  thaw(): Promise<FreezeReport>;
}

/**
 * Freezes. Throws what the coordinator does (QuiesceError: refused or failed, the guest thawed; StateError: somebody
 * else holds it), a QuiesceError `E_FREEZE_LOST` if the answer was lost and the thaw after it was confirmed, a
 * ThawUnconfirmedError if it was not. The thaw is registered with `reverter` before the freeze is sent.
 */
export async function quiesce(
  agent: GuestAgent,
  request: FreezeRequest & { readonly session: string },
  reverter: Reverter,
  marks: Marks,
  signal: AbortSignal,
): Promise<Hold> {
  let session: FreezeSession | undefined;
  let settled = false;
  const undo = async (): Promise<void> => {
    if (settled) return;
    await thawUntilConfirmed(agent, request.leaseMs + PAST_LEASE_MS, request.session);
    settled = true;
  };
  reverter.push('the freeze of the guest', undo);

  marks.freezeRequestedMs = monotonicMs();
  try {
    session = await agent.coordinator.freeze(request, signal);
  } catch (cause) {
    if (isSettled(cause)) {
      settled = true;
      throw cause;
    }
    await undo();
    const why = !signal.aborted
      ? describeError(cause)
      : signal.reason instanceof BridgeError
        ? signal.reason.message
        : 'interrupted';
    throw new QuiesceError('E_FREEZE_LOST', `the freeze was not answered (${why}); the guest is thawed`, { cause });
  }
  marks.freezeAnsweredMs = monotonicMs();
  return holdOf(session, request.leaseMs, marks, agent, () => {
    settled = true;
  });
}

// True if the guest is thawed, or was never asked to freeze.
function isSettled(error: unknown): boolean {
  if (error instanceof QuiesceError || error instanceof StateError) return true;
  return error instanceof BridgeError && !(error instanceof ThawUnconfirmedError) && error.outcome === 'none';
}

function holdOf(
  session: FreezeSession,
  leaseMs: number,
  marks: Marks,
  agent: GuestAgent,
  onConfirmed: () => void,
): Hold {
  let lost: string | undefined;
  let thawing: Promise<FreezeReport> | undefined;
  // One at a time, and given up by the thaw: nothing may stand before it in the queue.
  const renewals = new AbortController();
  let renewing = false;
  const renew = async (): Promise<void> => {
    if (renewing) return;
    renewing = true;
    try {
      await session.renew(leaseMs, renewals.signal);
    } catch (error) {
      if (!renewals.signal.aborted) lost ??= describeError(error);
    } finally {
      renewing = false;
    }
  };
  const timer = setInterval(() => void renew(), leaseMs / 3);
  const thaw = async (): Promise<FreezeReport> => {
    clearInterval(timer);
    renewals.abort();
    marks.thawRequestedMs = monotonicMs();
    try {
      const report = await session.thaw();
      if (report.state !== 'thawed') throw new Error(`the final report says ${report.state}`);
      onConfirmed();
      return report;
    } catch (cause) {
      await thawUntilConfirmed(agent, leaseMs + PAST_LEASE_MS, session.id);
      onConfirmed();
      // Thawed, but by whom and when is not known any more.
      return { ...session.report, state: 'thawed', outcome: 'broken', level: 'crash', error: describeError(cause) };
    } finally {
      marks.thawAnsweredMs = monotonicMs();
    }
  };
  return {
    report: session.report,
    get lost() {
      return lost;
    },
    thaw: () => (thawing ??= thaw()),
  };
}
