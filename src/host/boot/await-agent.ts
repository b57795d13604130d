// Waits until the agent of a guest that was just started answers, or it is seen that it will not.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { DeadlineError, UnreachableError } from '../../errors.js';
import { QgaClient } from '../../qga/client.js';
import type { GuestProcess } from './guest-process.js';
import { stateOf } from './guest-state.js';

export interface AwaitOptions {
  readonly agentSocket: string;
  readonly limitMs: number;
  /** Given up when the guest has not read its disks for so long: a processor that stands still. Undefined: never. */
  readonly stallMs: number | undefined;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

const TRY_MS = 2000;
const PAUSE_MS = 250;

export interface NoAgent {
  /** A sentence. */
  readonly why: string;
  /** The guest has come as far as it could: it is gone, or stands still. False where time has passed alone. */
  readonly isOver: boolean;
}

/** The agent, or why there is none. Throws what `stateOf` does: that says nothing about the guest. */
export async function awaitAgent(guest: GuestProcess, options: AwaitOptions): Promise<QgaClient | NoAgent> {
  const { agentSocket, limitMs, stallMs, signal, onProgress } = options;
  const deadline = new Deadline(limitMs);
  const startMs = performance.now();
  let reads = 0;
  let stall = new Deadline(stallMs ?? limitMs);
  for (;;) {
    const state = await stateOf(guest, signal);
    if (state.hasPanicked) return over('the guest panicked before its agent answered');
    if (state.endedBy !== undefined) {
      return over('the guest powered off, restarted or panicked before its agent answered');
    }
    if (state.reads !== reads) stall = new Deadline(stallMs ?? limitMs);
    reads = state.reads;
    const seconds = Math.floor((performance.now() - startMs) / 1000);
    onProgress(`the guest boots, for ${seconds} s; ${reads} reads of its disks`);
    try {
      return await QgaClient.connect(agentSocket, { timeoutMs: Math.max(1, Math.min(TRY_MS, deadline.remainingMs)) });
    } catch (error) {
      if (!(error instanceof UnreachableError) && !(error instanceof DeadlineError)) throw error;
    }
    if (deadline.passed) return { why: `no agent answered within ${Math.round(limitMs / 1000)} s`, isOver: false };
    if (stallMs !== undefined && stall.passed) {
      return over(`the guest did not read its disks for ${Math.round(stallMs / 1000)} s, and no agent answered`);
    }
    await sleep(PAUSE_MS, undefined, { signal }).catch(() => undefined);
  }
}

function over(why: string): NoAgent {
  return { why, isOver: true };
}
