// Thaws a guest whose session nobody has an object of: after a lost answer, for `thaw` and for `recover`. The loop is
// src/qga/until-confirmed.ts, one attempt of it GuestAgent.thaw.
import { Deadline } from '../../deadline.js';
import { untilConfirmed } from '../../qga/until-confirmed.js';
import type { GuestAgent } from './guest-agent.js';

/**
 * Ends what a host froze in the guest (`session`, or whatever it is), and returns when the guest says that it is thawed.
 * Throws a ThawUnconfirmedError after `limitMs`, whose cause is what the last attempt met. A caller whose budget began
 * earlier gives its own `deadline`; `limitMs`, the whole of that budget, is then for the message alone. `leastTryMs` is
 * what an attempt may take, however little is left.
 */
export async function thawUntilConfirmed(
  agent: GuestAgent,
  limitMs: number,
  session?: string,
  {
    deadline = new Deadline(limitMs),
    leastTryMs = 1,
  }: { readonly deadline?: Deadline; readonly leastTryMs?: number } = {},
): Promise<{ readonly wasFrozen: boolean }> {
  let mayHaveThawed = false;
  return await untilConfirmed(
    deadline,
    async () => {
      try {
        const { wasFrozen } = await agent.thaw(session, Math.max(leastTryMs, deadline.remainingMs));
        return { wasFrozen: wasFrozen || mayHaveThawed };
      } catch (error) {
        mayHaveThawed = true;
        throw error;
      }
    },
    () => ({ message: `the guest did not confirm within ${limitMs} ms that it is thawed: look at it NOW` }),
  );
}
