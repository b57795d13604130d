// Waits until the agent of a guest that was just started answers, or it is seen that it will not.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { throwIfInterrupted } from '../../confirm.js';
import { CutError, DeadlineError, UnreachableError } from '../../errors.js';
import { QgaClient } from '../../qga/client.js';
import { runQmp } from '../../qmp/commands.js';
import type { GuestProcess } from './guest-process.js';

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
/** QEMU's word for a guest that it paused because a write met the end of a filesystem; other errors the guest is told. */
const NO_SPACE = 'io-error';

/**
 * The agent, or why there is none, in a sentence. Throws a QuiesceError when interrupted, and a CutError `E_NO_SPACE` if the
 * guest waits for space on this host, which says nothing about it.
 */
export async function awaitAgent(guest: GuestProcess, options: AwaitOptions): Promise<QgaClient | string> {
  const { agentSocket, limitMs, stallMs, signal, onProgress } = options;
  const deadline = new Deadline(limitMs);
  const startMs = performance.now();
  let reads = 0;
  let stall = new Deadline(stallMs ?? limitMs);
  for (;;) {
    throwIfInterrupted(signal, 'nothing was recorded');
    const state = await stateOf(guest);
    if (state === undefined) return 'the guest powered off, restarted or panicked before its agent answered';
    if (state.status === 'guest-panicked') return 'the guest panicked before its agent answered';
    if (state.status === NO_SPACE) throw fullScratch();
    if (state.reads !== reads) stall = new Deadline(stallMs ?? limitMs);
    reads = state.reads;
    const seconds = Math.floor((performance.now() - startMs) / 1000);
    onProgress(`the guest boots, for ${seconds} s; ${reads} reads of its disks`);
    try {
      return await QgaClient.connect(agentSocket, { timeoutMs: Math.max(1, Math.min(TRY_MS, deadline.remainingMs)) });
    } catch (error) {
      if (!(error instanceof UnreachableError) && !(error instanceof DeadlineError)) throw error;
    }
    if (deadline.passed) return `no agent answered within ${Math.round(limitMs / 1000)} s`;
    if (stallMs !== undefined && stall.passed) {
      return `the guest did not read its disks for ${Math.round(stallMs / 1000)} s, and no agent answered`;
    }
    await sleep(PAUSE_MS, undefined, { signal }).catch(() => undefined);
  }
}

/** Throws a CutError `E_NO_SPACE` if the guest stands still because its images cannot grow: that says nothing about it. */
export async function refuseFullScratch(guest: GuestProcess): Promise<void> {
  if ((await stateOf(guest))?.status === NO_SPACE) throw fullScratch();
}

function fullScratch(): CutError {
  return new CutError('E_NO_SPACE', 'the guest could not write to its scratch images: see --scratch');
}

/** Undefined once QEMU has ended. */
async function stateOf(guest: GuestProcess): Promise<{ readonly status: string; readonly reads: number } | undefined> {
  try {
    const { status } = await runQmp(guest.monitor, 'query-status', {});
    const disks = await runQmp(guest.monitor, 'query-blockstats', {});
    return { status, reads: disks.reduce((sum, { stats }) => sum + stats.rd_operations, 0) };
  } catch (error) {
    await sleep(PAUSE_MS);
    if (guest.hasEnded()) return undefined;
    throw error;
  }
}
