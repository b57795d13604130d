// Handles jobs that stand or fall together: all are waited for until each has done its work and is `pending`, and only
// then are they finalized; if one fails, the others are cancelled. QEMU's own grouping (`completion-mode: grouped`) is
// refused in a transaction that also touches bitmaps. Start each with auto-finalize and auto-dismiss switched off.
// Specification: QEMU qapi/job.json, qapi/transaction.json.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../deadline.js';
import { BridgeError, DeadlineError } from '../errors.js';
import type { QmpClient } from './client.js';
import { runQmp, type JobInfo } from './commands.js';
import { QmpError } from './errors.js';
import { dismissJob, waitForJob } from './jobs.js';
import type { Monitor } from './monitor.js';

export interface GroupProgress {
  /** Of all jobs together (bytes, for block jobs). */
  readonly current: number;
  readonly total: number;
}

export interface GroupOptions {
  readonly signal: AbortSignal;
  /** A job of the group does not get on for so long, before it is pending: the group is given up. */
  readonly stallMs: number;
  /** Called about twice a second; what it throws ends the wait. It is not waited for: nothing may delay giving up. */
  readonly onProgress: (progress: GroupProgress) => void;
}

/** An event makes the wait quick; the poll gives the progress. */
const POLL_MS = 500;
/** A cancelled job waits for what is under way at its target. */
const CANCEL_LIMIT_MS = 30_000;
const CANCEL_POLL_MS = 50;

/** Those of the jobs that QEMU knows. */
export async function groupJobs(client: Monitor, ids: readonly string[]): Promise<JobInfo[]> {
  return (await runQmp(client, 'query-jobs', {})).filter(({ id }) => ids.includes(id));
}

/**
 * Returns the jobs when every one is pending. Throws a BridgeError `E_JOB` with QEMU's reason if one failed or is gone, a
 * DeadlineError if one does not get on, the signal's reason when aborted, and what `check` throws, which asks the monitor
 * alone: nothing is cancelled yet.
 */
export async function waitForGroup(
  client: QmpClient,
  ids: readonly string[],
  options: GroupOptions,
  check: (jobs: readonly JobInfo[]) => Promise<void> = () => Promise.resolve(),
): Promise<JobInfo[]> {
  const { signal, stallMs, onProgress } = options;
  using listener = client.listen('JOB_STATUS_CHANGE', ({ data }) => ids.includes(String(data['id'])));
  const stall = new StallClock(stallMs);
  for (;;) {
    signal.throwIfAborted();
    const jobs = await groupJobs(client, ids);
    for (const id of ids) checkAlive(id, jobs);
    await check(jobs);
    onProgress(progressOf(jobs));
    if (jobs.every(({ status }) => status === 'pending')) return jobs;
    for (const job of jobs) stall.check(job);
    await listener.next(POLL_MS).catch((error: unknown) => {
      if (!(error instanceof DeadlineError)) throw error;
    });
  }
}

/** When each job was last seen to get on: one that hangs must not hide behind the others. */
class StallClock {
  readonly #limitMs: number;
  readonly #seen = new Map<string, { readonly state: string; readonly sinceMs: number }>();

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Throws a DeadlineError if the job has not got on for too long. One that is pending waits for the others. */
  check({ id, status, 'current-progress': current }: JobInfo): void {
    const state = `${status} ${current}`;
    const before = this.#seen.get(id);
    const nowMs = performance.now();
    if (before?.state !== state) this.#seen.set(id, { state, sinceMs: nowMs });
    else if (status !== 'pending' && nowMs - before.sinceMs > this.#limitMs)
      throw new DeadlineError(`job ${id} to get on`, this.#limitMs);
  }
}

function checkAlive(id: string, jobs: readonly JobInfo[]): void {
  const job = jobs.find((each) => each.id === id);
  if (job === undefined) throw new BridgeError('E_JOB', `job ${id} is gone: somebody else dismissed it`);
  if (job.error !== undefined) throw new BridgeError('E_JOB', `job ${id} failed: ${job.error}`, { facts: { job } });
  if (job.status === 'concluded')
    throw new BridgeError('E_JOB', `job ${id} ended before its group`, { facts: { job } });
}

/** Of all of them together. */
export function progressOf(jobs: readonly JobInfo[]): GroupProgress {
  return { current: sumOf(jobs, 'current-progress'), total: sumOf(jobs, 'total-progress') };
}

function sumOf(jobs: readonly JobInfo[], what: 'current-progress' | 'total-progress'): number {
  return jobs.reduce((sum, job) => sum + job[what], 0);
}

/** Finalizes and forgets them. Throws what waitForJob does. */
export async function finalizeGroup(client: QmpClient, ids: readonly string[], limitMs: number): Promise<void> {
  for (const id of ids) await runQmp(client, 'job-finalize', { id });
  for (const id of ids) {
    await waitForJob(client, id, ['concluded'], { limitMs });
    await dismissJob(client, id);
  }
}

/** Ends and forgets those of them that are there, however far they came. Throws a DeadlineError if one does not end. */
export async function cancelGroup(client: Monitor, ids: readonly string[]): Promise<void> {
  const asked = new Set<string>();
  const deadline = new Deadline(CANCEL_LIMIT_MS);
  for (;;) {
    const jobs = await groupJobs(client, ids);
    if (jobs.length === 0) return;
    for (const { id, status } of jobs) {
      if (status === 'concluded') await dismissJob(client, id);
      else if (!asked.has(id)) await cancel(client, id);
      asked.add(id);
    }
    if (deadline.passed) throw new DeadlineError(`jobs ${ids.join(', ')} to end`, CANCEL_LIMIT_MS);
    if (jobs.some(({ status }) => status !== 'concluded')) await sleep(CANCEL_POLL_MS);
  }
}

async function cancel(client: Monitor, id: string): Promise<void> {
  try {
    await runQmp(client, 'job-cancel', { id });
  } catch (error) {
    // It is ending by itself already; whether it does is seen.
    if (!(error instanceof QmpError)) throw error;
  }
}
