// The interface of a cut, what is done to the VM while its guest is held: one command, and how one finds out what came
// of it. The cut by overlays is overlay-cut.ts.
import { BridgeError, CutError, describeError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import type { Marks } from '../sets/point-in-time.js';

/** One disk after the cut, compared with the plan. */
export interface CutFinding {
  /** For people: how it is not as planned; undefined if it is. */
  readonly doubt: string | undefined;
  /** Nothing holds its state of this instant. */
  readonly isLost: boolean;
}

export interface Cut<F extends CutFinding = CutFinding> {
  /** For messages: `the cut of 2 disks`. */
  readonly what: string;

  /**
   * Sends the one command. Throws what the hypervisor answers: then nothing was done; its outcome is 'unknown' if no answer
   * came within `timeoutMs`.
   */
  send(timeoutMs: number): Promise<void>;

  /**
   * Tells, after an answer that did not come and the thaw, what it came to: all or nothing. Throws if that cannot be
   * known.
   */
  became(timeoutMs: number): Promise<'cut' | 'not cut'>;

  /**
   * The guest thawed: what was cut, compared with the plan, in its order. Never throws: the set is there, and what cannot be
   * asked any more is a doubt, unless the cut itself proved it.
   */
  verify(): Promise<readonly F[]>;
}

/** Sends it and stamps `marks`. Throws a CutError; its outcome is 'unknown' if the answer did not come. */
export async function sendCut(cut: Cut, timeoutMs: number, marks: Marks): Promise<void> {
  marks.cutSentMs = monotonicMs();
  try {
    await cut.send(timeoutMs);
  } catch (cause) {
    const outcome = cause instanceof BridgeError ? cause.outcome : 'none';
    throw new CutError('E_CUT', `${cut.what} failed: ${describeError(cause)}`, { cause, outcome });
  } finally {
    marks.cutAnsweredMs = monotonicMs();
  }
}
