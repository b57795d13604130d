// Holds the guest: registers the undo, freezes, renews the lease while the tool works, and thaws whatever became of the
// freeze. The undo is registered right before the freeze is sent, so that a Reverter thaws before it undoes anything
// else. The freezing itself is the Coordinator's.
//
// A thaw has one budget, whoever asks for it and however often: from the first attempt, the coordinator's included, to
// RemoteLimits.thawMs or past the lease's end, whichever is later. Once it is spent, the guest is asked for some seconds
// more, and an attempt that is answered slowly (hooks let go in it) may take longer than that.
import type { FreezeReport, FreezeRequest, FreezeSession } from '../../consistency.js';
import { BridgeError, QuiesceError, StateError, ThawUnconfirmedError, describeError } from '../../errors.js';
import type { Reverter } from '../../reverter.js';
import { monotonicMs } from '../../linux/clock.js';
import { Deadline } from '../../deadline.js';
import type { GuestAgent } from './guest-agent.js';
import type { Marks } from '../sets/point-in-time.js';
import { thawUntilConfirmed } from './thaw-guest.js';

/** How long past the lease's end a confirmation is waited for: the guest has thawed itself by then. */
const PAST_LEASE_MS = 5000;

/**
 * How long the guest is asked when the budget is spent: nobody may take a spent budget for a thaw that was not tried.
 */
const LATE_MS = 5000;
/** One attempt of these: a stock agent has no lease, and its hooks may need their time. */
const LATE_TRY_MS = 15_000;

export interface Hold {
  /** The guest's report as of the freeze. */
  readonly report: FreezeReport;
  /** Why the guest no longer holds, if a renewal said so. */
  readonly lost: string | undefined;
  /**
   * Thaws and gives the final report, stamping `marks`. May be called again: the same report. Throws a
   * ThawUnconfirmedError if nobody confirms within the budget, past the lease's end, that the guest is thawed.
   */
  thaw(): Promise<FreezeReport>;
}

/**
 * Freezes. Throws what the coordinator does (QuiesceError: refused or failed, the guest thawed; StateError: somebody
 * else holds it), a QuiesceError `E_FREEZE_LOST` if the answer was lost and the thaw after it was confirmed, a
 * ThawUnconfirmedError if it was not. The thaw is registered with `reverter` before the freeze is sent. `sessionThawMs`
 * is how long the coordinator itself tries to thaw before it throws a ThawUnconfirmedError.
 */
export async function quiesce(
  agent: GuestAgent,
  request: FreezeRequest & { readonly session: string },
  reverter: Reverter,
  marks: Marks,
  signal: AbortSignal,
  sessionThawMs = 0,
): Promise<Hold> {
  const thaw = new OwedThaw(agent, request.session, request.leaseMs + PAST_LEASE_MS);
  reverter.push('the freeze of the guest', () => thaw.confirm());
  let session: FreezeSession;

  marks.freezeRequestedMs = monotonicMs();
  try {
    session = await agent.coordinator.freeze(request, signal);
  } catch (cause) {
    if (isSettled(cause)) {
      thaw.settle();
      throw cause;
    }
    thaw.begin(cause instanceof ThawUnconfirmedError ? sessionThawMs : 0);
    await thaw.confirm();
    const why = !signal.aborted
      ? describeError(cause)
      : signal.reason instanceof BridgeError
        ? signal.reason.message
        : 'interrupted';
    throw new QuiesceError('E_FREEZE_LOST', `the freeze was not answered (${why}); the guest is thawed`, { cause });
  }
  marks.freezeAnsweredMs = monotonicMs();
  return holdOf(session, request.leaseMs, marks, thaw);
}

/** A thaw that is owed from before the freeze is sent until it is confirmed. */
class OwedThaw {
  readonly #agent: GuestAgent;
  readonly #session: string;
  readonly #budgetMs: number;
  #deadline: Deadline | undefined;
  #isSettled = false;

  constructor(agent: GuestAgent, session: string, budgetMs: number) {
    this.#agent = agent;
    this.#session = session;
    this.#budgetMs = budgetMs;
  }

  /** Starts the budget, of which `spentMs` are gone; once it runs, further calls change nothing. */
  begin(spentMs = 0): Deadline {
    return (this.#deadline ??= new Deadline(this.#budgetMs - spentMs));
  }

  /** Nothing is owed any more. */
  settle(): void {
    this.#isSettled = true;
  }

  /**
   * Returns when the guest confirms, at once if nothing is owed. Throws a ThawUnconfirmedError, and may be called
   * again.
   */
  async confirm(): Promise<void> {
    if (this.#isSettled) return;
    const deadline = new Deadline(Math.max(this.begin().remainingMs, LATE_MS));
    await thawUntilConfirmed(this.#agent, this.#budgetMs, this.#session, { deadline, leastTryMs: LATE_TRY_MS });
    this.settle();
  }
}

// True if the guest is thawed, or was never asked to freeze.
function isSettled(error: unknown): boolean {
  if (error instanceof QuiesceError || error instanceof StateError) return true;
  return error instanceof BridgeError && !(error instanceof ThawUnconfirmedError) && error.outcome === 'none';
}

function holdOf(session: FreezeSession, leaseMs: number, marks: Marks, owed: OwedThaw): Hold {
  let lost: string | undefined;
  let thawing: Promise<FreezeReport> | undefined;
  // Renewals go one at a time, and the thaw gives one up: nothing may stand before it in the queue.
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
    owed.begin();
    try {
      const report = await session.thaw();
      if (report.state !== 'thawed') throw new Error(`the final report says ${report.state}`);
      owed.settle();
      return report;
    } catch (cause) {
      await owed.confirm();
      // The guest is thawed, but by whom and when is not known any more.
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
