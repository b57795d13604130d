// Waits for jobs of the block layer, with a limit and progress, and dismisses them. The error of a job is taken from
// query-jobs. Whoever starts a job switches auto-dismiss off, so that its end can be asked for after a lost event.
// Specification: QEMU qapi/job.json.
import { Deadline } from '../deadline.js';
import { BridgeError, DeadlineError } from '../errors.js';
import type { QmpClient, QmpExecuteOptions } from './client.js';
import type { Monitor } from './monitor.js';
import { runQmp, type JobInfo, type JobStatus } from './commands.js';

export interface JobProgress {
  readonly id: string;
  readonly status: JobStatus;
  /** Units of the job (bytes, for block jobs); `total` may grow. */
  readonly current: number;
  readonly total: number;
}

export interface WaitForJobOptions {
  readonly limitMs: number;
  /** Limit of one answer of QEMU's: a job may keep its main loop busy. Default: the monitor's own. */
  readonly answerMs?: number;
  /** Called at most about twice a second. Must not throw. */
  readonly onProgress?: (progress: JobProgress) => void;
  readonly signal?: AbortSignal;
}

/** An event makes the wait quick. The poll finds a change whose event was lost, and gives the progress. */
const POLL_MS = 500;

/** The job as QEMU knows it; undefined if there is none (never started, or dismissed). */
export async function findJob(client: Monitor, id: string, options?: QmpExecuteOptions): Promise<JobInfo | undefined> {
  return (await runQmp(client, 'query-jobs', {}, options)).find((job) => job.id === id);
}

/**
 * Waits until the job has one of the statuses, or is over. Throws a BridgeError `E_JOB` with QEMU's reason if it
 * failed (then concluded: the caller dismisses it) or vanished, a DeadlineError after `limitMs`, the signal's reason
 * when aborted; the job goes on in these two cases.
 */
export async function waitForJob(
  client: QmpClient,
  id: string,
  wanted: readonly JobStatus[],
  { limitMs, answerMs, onProgress, signal }: WaitForJobOptions,
): Promise<JobInfo> {
  using listener = client.listen('JOB_STATUS_CHANGE', ({ data }) => data['id'] === id);
  const deadline = new Deadline(limitMs);
  for (;;) {
    const job = await findJob(client, id, answerMs === undefined ? undefined : { timeoutMs: answerMs });
    if (job === undefined) throw new BridgeError('E_JOB', `job ${id} is gone: somebody else dismissed it`);
    // QEMU tells of the error a moment before it has ended the job, which cannot be dismissed until then.
    if (job.error !== undefined && job.status === 'concluded')
      throw new BridgeError('E_JOB', `job ${id} failed: ${job.error}`, { facts: { job } });
    onProgress?.({ id, status: job.status, current: job['current-progress'], total: job['total-progress'] });
    if (job.error === undefined && wanted.includes(job.status)) return job;
    if (job.status === 'concluded')
      throw new BridgeError('E_JOB', `job ${id} ended before it was ${wanted.join(' or ')}`);
    signal?.throwIfAborted();
    if (deadline.passed) throw new DeadlineError(`job ${id} to be ${wanted.join(' or ')}`, limitMs);
    await oneEvent(listener.next(Math.min(POLL_MS, deadline.remainingMs)));
  }
}

/** Forgets a job that is concluded. */
export async function dismissJob(client: Monitor, id: string): Promise<void> {
  await runQmp(client, 'job-dismiss', { id });
}

async function oneEvent(next: Promise<unknown>): Promise<void> {
  try {
    await next;
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
  }
}
