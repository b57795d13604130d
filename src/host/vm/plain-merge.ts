// Merges one overlay of a plain QEMU into its base by a job of ours: block-commit, ready, complete, concluded. A job
// that an earlier call began is taken up. Specification: QEMU qapi/block-core.json (block-commit), job.json.
import { defined } from '../../defined.js';
import { BridgeError, CutError, describeError } from '../../errors.js';
import type { QmpClient } from '../../qmp/client.js';
import { runQmp, type QmpArgs } from '../../qmp/commands.js';
import { QmpError } from '../../qmp/errors.js';
import { dismissJob, findJob, waitForJob } from '../../qmp/jobs.js';
import type { MergeLayer, MergeOptions } from './hypervisor.js';
import { bitmapsToBase } from './plain-bitmaps.js';

/** When it returns, the job is concluded, not dismissed: the last trace of what was done. */
export async function mergeByJob(
  client: QmpClient,
  { vmDisk, overlayNode, baseNode }: MergeLayer,
  options: MergeOptions,
): Promise<void> {
  const { jobId, speed } = options;
  if (vmDisk === undefined || overlayNode === undefined || baseNode === undefined) {
    throw new CutError('E_MERGE_REFUSED', 'its layers are not all in the block graph');
  }
  const job = await findJob(client, jobId);
  // A concluded job has merged nothing: it failed, or it was cancelled.
  if (job?.status === 'concluded') await dismissJob(client, jobId);
  if (job === undefined || job.status === 'concluded') {
    await begin(client, {
      'job-id': jobId,
      device: vmDisk.rootNode,
      'top-node': overlayNode,
      'base-node': baseNode,
      'auto-dismiss': false,
      ...defined({ speed }),
    });
  }
  await finishJob(client, options, () => bitmapsToBase(client, overlayNode, baseNode));
}

async function begin(client: QmpClient, args: QmpArgs<'block-commit'>): Promise<void> {
  try {
    await runQmp(client, 'block-commit', args);
  } catch (cause) {
    // If QEMU said no, nothing was begun, and the base is as it was.
    if (!(cause instanceof QmpError)) throw cause;
    throw new CutError('E_MERGE_REFUSED', describeError(cause), { cause });
  }
}

async function finishJob(
  client: QmpClient,
  { jobId, limitMs, signal, onProgress, beforePivot }: MergeOptions,
  whenReady: () => Promise<void>,
): Promise<void> {
  try {
    const { status } = await waitForJob(client, jobId, ['ready', 'concluded'], { limitMs, signal, onProgress });
    if (status === 'ready') {
      await whenReady();
      await beforePivot();
      await runQmp(client, 'job-complete', { id: jobId });
      await waitForJob(client, jobId, ['concluded'], { limitMs });
    }
  } catch (error) {
    await giveUpJob(client, jobId);
    throw error;
  }
}

/** Cancelled, the commit leaves the VM on the overlay, as it was; what was copied already does no harm. */
export async function giveUpJob(client: QmpClient, jobId: string): Promise<void> {
  const job = await findJob(client, jobId);
  if (job === undefined) return;
  if (job.status !== 'concluded') {
    await runQmp(client, 'job-cancel', { id: jobId });
    try {
      await waitForJob(client, jobId, ['concluded'], { limitMs: 30_000 });
    } catch (error) {
      // A cancelled job ends with an error of its own; anything else is not ours to hide.
      if (!(error instanceof BridgeError) || error.code !== 'E_JOB') throw error;
    }
  }
  await dismissJob(client, jobId);
}
