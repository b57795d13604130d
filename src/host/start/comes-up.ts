// Whether a guest that was just started from a run comes up.
import { setTimeout as sleep } from 'node:timers/promises';
import { defined } from '../../defined.js';
import { Deadline } from '../../deadline.js';
import { runQmp } from '../../qmp/commands.js';
import { awaitAgent, type NoAgent } from '../boot/await-agent.js';
import type { GuestProcess } from '../boot/guest-process.js';
import { stateOf } from '../boot/guest-state.js';

export interface UpOptions {
  /** Undefined where none is known to be in the guest: nothing tells that it is up. */
  readonly agentSocket: string | undefined;
  readonly limitMs: number;
  /** A guest that does not read its disks for so long hangs; undefined: it is not judged by that. */
  readonly stallMs: number | undefined;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

export interface Up {
  /** From its start until its agent answered. */
  readonly agentMs?: number;
  /** What a person has to know, in sentences. */
  readonly notes: readonly string[];
}

/** Why it does not, if so. Throws what `stateOf` does. */
export async function comesUp(guest: GuestProcess, options: UpOptions): Promise<Up | NoAgent> {
  const { agentSocket, stallMs } = options;
  const startMs = performance.now();
  if (agentSocket === undefined) {
    const hangs = stallMs !== undefined && !(await hasRead(guest, stallMs, options.signal));
    if (hangs) return { why: `the guest did not read its disks for ${Math.round(stallMs / 1000)} s`, isOver: true };
    return { notes: ['its guest is not known to have an agent: whether it is up nobody told'] };
  }
  const answer = await awaitAgent(guest, { ...options, agentSocket });
  if (!('why' in answer)) {
    await answer[Symbol.asyncDispose]();
    return { ...defined({ agentMs: Math.round(performance.now() - startMs) }), notes: [] };
  }
  // One that stands still after it has written was up, and is nobody's to throw away.
  const isLost = answer.isOver && (guest.hasEnded() || !(await hasWritten(guest)));
  return isLost ? answer : { notes: [`${answer.why}: look at it`] };
}

const POLL_MS = 250;

async function hasRead(guest: GuestProcess, limitMs: number, signal: AbortSignal): Promise<boolean> {
  const deadline = new Deadline(limitMs);
  while (!deadline.passed) {
    const { reads, endedBy } = await stateOf(guest, signal);
    if (reads > 0) return true;
    if (endedBy !== undefined) return false;
    await sleep(POLL_MS, undefined, { signal }).catch(() => undefined);
  }
  return false;
}

async function hasWritten({ monitor }: GuestProcess): Promise<boolean> {
  return (await runQmp(monitor, 'query-blockstats', {})).some(({ stats }) => stats.wr_operations > 0);
}
