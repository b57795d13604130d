// Waits until the guest's agent answers: after a boot, a restore or an upgrade of the agent.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { DeadlineError, UnreachableError, describeError } from '../../errors.js';
import { throwIfInterrupted } from '../../confirm.js';
import type { Place } from '../vm/place.js';
import { defaultAgentLimits, type GuestAgent, type OpenGuestAgent } from './guest-agent.js';

const PAUSE_MS = 250;

/**
 * The agent, as soon as it answers; the caller closes it. Throws an UnreachableError that says what the last attempt met
 * if none answers within `limitMs`, a QuiesceError when aborted.
 */
export async function waitForAgent(
  openAgent: OpenGuestAgent,
  place: Place,
  limitMs: number,
  signal: AbortSignal,
  onProgress: (text: string) => void,
): Promise<GuestAgent> {
  const deadline = new Deadline(limitMs);
  for (;;) {
    throwIfInterrupted(signal, 'no agent had answered');
    try {
      const answerMs = Math.max(1, Math.min(defaultAgentLimits.answerMs, deadline.remainingMs));
      return await openAgent(place, { ...defaultAgentLimits, answerMs });
    } catch (error) {
      if (!(error instanceof UnreachableError) && !(error instanceof DeadlineError)) throw error;
      onProgress(`waiting for the agent: ${describeError(error)}`);
      if (deadline.remainingMs <= PAUSE_MS) {
        throw new UnreachableError('E_NO_AGENT', `no guest agent answered within ${limitMs} ms`, { cause: error });
      }
    }
    await sleep(PAUSE_MS, undefined, { signal }).catch(() => undefined);
  }
}
