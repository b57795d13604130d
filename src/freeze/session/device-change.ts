// A change of volumes beside the freeze path: to remove, extend or merge a snapshot suspends its origin for a moment. A
// freeze meanwhile would fail, or thaw over a suspended device; a change while something is frozen would fail half done.
// So a change takes the lock of this machine, as a session does. It waits for a session, and a session for it.
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { StateError, UnreachableError } from '../../errors.js';
import { FreezerHold } from '../freezer/hold.js';
import type { CoordinatorOptions } from '../options.js';
import { withDefaults } from '../settings.js';

/** What the freezer knows a change by. */
const OWNER = 'fsfreeze-snapshot, which changes ';
const STEP_MS = 100;
/** Whoever holds the lock for longer is taken for stopped, and ended. */
const LONGEST_MS = 120_000;
/** A session waits no longer for a change: its requester waits, too. */
const SESSION_WAITS_MS = 5_000;
const SESSION_STEP_MS = 20;

/**
 * Waits until no session holds the guest, at most `limitMs`, and keeps sessions away until what it gives is called. Where
 * there is no freezer there are none. Throws a StateError that names the holder at the limit, or an UnreachableError.
 */
export async function lockForChange(
  options: CoordinatorOptions,
  what: string,
  limitMs: number,
): Promise<() => Promise<void>> {
  const { freezerPath, leaseMaxMs, freezeLimitMs, ...places } = withDefaults(options);
  const isThere = freezerPath !== undefined && existsSync(freezerPath);
  const deadline = new Deadline(limitMs);
  const request = {
    session: `change-${randomUUID()}`,
    owner: `${OWNER}${what}`,
    leaseMaxMs,
    budgetMs: LONGEST_MS,
    freezeLimitMs,
    expedite: false,
  };
  const take = async (): Promise<FreezerHold> =>
    await FreezerHold.take(
      { ...places, freezerPath: isThere ? freezerPath : undefined },
      request,
      () => Promise.resolve(),
      () => undefined,
    );
  try {
    const hold = await whileHeld(take, () => !deadline.passed, STEP_MS);
    return async () => {
      await hold.release();
    };
  } catch (error) {
    if (error instanceof UnreachableError && !isThere)
      return async () => {
        await Promise.resolve();
      };
    throw error;
  }
}

/** Takes the lock for a session, once a change that is under way is over. Throws what `take` throws. */
export async function afterChange(take: () => Promise<FreezerHold>, goesOn: () => boolean): Promise<FreezerHold> {
  const deadline = new Deadline(SESSION_WAITS_MS);
  const waits = (error: StateError): boolean => holderOf(error).startsWith(OWNER) && !deadline.passed && goesOn();
  return await whileHeld(take, waits, SESSION_STEP_MS);
}

async function whileHeld(
  take: () => Promise<FreezerHold>,
  waits: (error: StateError) => boolean,
  stepMs: number,
): Promise<FreezerHold> {
  for (;;) {
    try {
      return await take();
    } catch (error) {
      if (!(error instanceof StateError) || !waits(error)) throw error;
    }
    await sleep(stepMs);
  }
}

function holderOf({ facts }: StateError): string {
  const holder = facts['holder'];
  if (typeof holder !== 'object' || holder === null || !('requester' in holder)) return '';
  return String(holder.requester);
}
