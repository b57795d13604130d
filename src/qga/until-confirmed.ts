// What must not be given up lightly: an attempt (the thaw) is repeated, each time after the client found its place in
// the stream again, until it is confirmed or the limit passes.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../deadline.js';
import { ThawUnconfirmedError } from '../errors.js';

/** How long a call over the channel may take, by what it does in the guest. */
export interface RemoteLimits {
  /** Questions: status, writers, fsinfo, renew. */
  readonly askMs: number;
  /** The whole of steps 1-4; must exceed the guest's prepare and hold budgets. */
  readonly freezeMs: number;
  /** One attempt to thaw, writers included. */
  readonly thawTryMs: number;
  /** All attempts to thaw together. */
  readonly thawMs: number;
}

export const defaultRemoteLimits: RemoteLimits = { askMs: 5000, freezeMs: 90_000, thawTryMs: 30_000, thawMs: 120_000 };

const PAUSE_MS = 250;

/**
 * The first result of `attempt`, which is given the time it may take. Throws a ThawUnconfirmedError, whose cause is
 * the last failure, when `limits.thawMs` have passed.
 */
export async function untilConfirmed<T>(
  peer: string,
  limits: RemoteLimits,
  attempt: (timeoutMs: number) => Promise<T>,
): Promise<T> {
  const deadline = new Deadline(limits.thawMs);
  let attempts = 0;
  for (;;) {
    try {
      attempts++;
      return await attempt(Math.max(1, Math.min(limits.thawTryMs, deadline.remainingMs)));
    } catch (cause) {
      if (deadline.remainingMs <= PAUSE_MS) {
        const message = `${peer}: the thaw is not confirmed after ${limits.thawMs} ms and ${attempts} attempts: look at the guest now`;
        throw new ThawUnconfirmedError('E_THAW_UNCONFIRMED', message, {
          cause,
          outcome: 'unknown',
          facts: { attempts },
        });
      }
    }
    await sleep(PAUSE_MS);
  }
}

/** Gives a function that does `work` once for all who call it; after a failure the next call tries again. */
export function onceConfirmed<T>(work: () => Promise<T>): () => Promise<T> {
  let under: Promise<T> | undefined;
  return async () => {
    under ??= work();
    try {
      return await under;
    } catch (error) {
      under = undefined;
      throw error;
    }
  };
}
