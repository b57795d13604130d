// The one loop that repeats a thaw until the guest confirms it, and the one budget of a loop: a deadline that no thaw
// outlives but the last ones of a host that has spent its budget. What an attempt says and takes for a confirmation is
// thaw-attempt.ts.
//
// Who makes the deadline:
//   a session of a coordinator     RemoteLimits.thawMs, from the first attempt
//   `thaw` and `recover`           what their user gave (host/guest/thaw-guest.ts)
//   a hold of `snapshot create`    the lease and a little more (host/guest/quiesce.ts), the session's time included
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../deadline.js';
import { ThawUnconfirmedError, type Facts } from '../errors.js';

/** How long a call over the channel may take, by what it does in the guest. */
export interface RemoteLimits {
  /** Questions: status, writers, fsinfo, renew. */
  readonly askMs: number;
  /** The whole of steps 1-4 (src/freeze/README.md); must exceed the guest's prepare and hold budgets. */
  readonly freezeMs: number;
  /** One attempt to thaw, writers included. */
  readonly thawTryMs: number;
  /** All attempts to thaw together, with the questions between them. */
  readonly thawMs: number;
}

export const defaultRemoteLimits: RemoteLimits = { askMs: 5000, freezeMs: 90_000, thawTryMs: 30_000, thawMs: 120_000 };

const PAUSE_MS = 250;

/** Milliseconds that a call within an attempt may take: at most `limitMs`, and not beyond the deadline; at least 1. */
export function timeLeft(deadline: Deadline, limitMs: number): number {
  return Math.max(1, Math.min(limitMs, deadline.remainingMs));
}

/**
 * The first result of `attempt`, which is made at least once and again until the deadline. The attempt bounds its own
 * calls by `timeLeft`. Throws a ThawUnconfirmedError with the words of `unconfirmed`, whose cause is the last failure.
 */
export async function untilConfirmed<T>(
  deadline: Deadline,
  attempt: () => Promise<T>,
  unconfirmed: (attempts: number) => { readonly message: string; readonly facts?: Facts },
): Promise<T> {
  for (let attempts = 1; ; attempts++) {
    try {
      return await attempt();
    } catch (cause) {
      if (deadline.remainingMs <= PAUSE_MS) {
        const { message, facts = {} } = unconfirmed(attempts);
        throw new ThawUnconfirmedError('E_THAW_UNCONFIRMED', message, { cause, outcome: 'unknown', facts });
      }
    }
    await sleep(PAUSE_MS);
  }
}

/** The thaw of a session: `untilConfirmed` within `limits.thawMs`. `peer` names the agent in the error. */
export async function untilSessionThawed<T>(
  peer: string,
  limits: RemoteLimits,
  attempt: (deadline: Deadline) => Promise<T>,
): Promise<T> {
  const deadline = new Deadline(limits.thawMs);
  return await untilConfirmed(
    deadline,
    () => attempt(deadline),
    (attempts) => ({
      message: `${peer}: the thaw is not confirmed after ${limits.thawMs} ms and ${attempts} attempts: look at the guest now`,
      facts: { attempts },
    }),
  );
}

/** Gives a function that does `work` once for all who call it; after a failure the next call tries again. */
export function onceConfirmed<T>(work: () => Promise<T>): () => Promise<T> {
  let underWay: Promise<T> | undefined;
  return async () => {
    underWay ??= work();
    try {
      return await underWay;
    } catch (error) {
      underWay = undefined;
      throw error;
    }
  };
}
