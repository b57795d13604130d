// `thaw`: ends whatever a host froze in the guest, and does not rest until the guest says so.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { ThawUnconfirmedError } from '../../errors.js';
import type { GuestAgent } from './guest-agent.js';

const PAUSE_MS = 250;

/**
 * Again and again until the guest says that it is thawed. Throws a ThawUnconfirmedError, with what the last attempt met,
 * after `limitMs`.
 */
export async function thawUntilConfirmed(
  agent: GuestAgent,
  limitMs: number,
  session?: string,
): Promise<{ readonly wasFrozen: boolean }> {
  const deadline = new Deadline(limitMs);
  let wasFrozen = false;
  for (;;) {
    try {
      return { wasFrozen: (await agent.thaw(session, Math.max(1, deadline.remainingMs))).wasFrozen || wasFrozen };
    } catch (cause) {
      // It may have been this attempt that thawed it.
      wasFrozen = true;
      if (deadline.remainingMs <= PAUSE_MS) {
        const message = `the guest did not confirm within ${limitMs} ms that it is thawed: look at it NOW`;
        throw new ThawUnconfirmedError('E_THAW_UNCONFIRMED', message, { cause, outcome: 'unknown' });
      }
    }
    await sleep(PAUSE_MS);
  }
}
