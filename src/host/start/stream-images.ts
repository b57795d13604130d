// Makes the images of a VM that runs from a backup whole: QEMU copies what lies below into each, while the guest runs. The
// header of an image stops naming what lies below only when everything is on the disk. It may be called again at any point,
// after a tool was killed for instance: jobs that QEMU has are taken up. Specification: QEMU qapi/block-core.json
// (block-stream).
import * as v from 'valibot';
import { Deadline } from '../../deadline.js';
import { defined } from '../../defined.js';
import { CutError, DeadlineError } from '../../errors.js';
import type { QmpClient } from '../../qmp/client.js';
import { runQmp } from '../../qmp/commands.js';
import { finalizeGroup, groupJobs, waitForGroup } from '../../qmp/job-group.js';
import { dismissJob } from '../../qmp/jobs.js';
import { measured, progressLine, type TransferProgress } from '../../qmp/transfer-progress.js';
import { syncPath } from '../images/durable-file.js';
import { runQemuImg } from '../images/qemu-img-task.js';
import { referencesOf } from '../images/references.js';
import type { StartedDisk } from './start-record.js';

/** A slow repository is no reason to give up: nothing is lost meanwhile. */
const STALL_MS = 10 * 60_000;
/** What the guest wrote last may be much. */
const FLUSH_MS = 10 * 60_000;
const FINALIZE_MS = 60_000;

export interface StreamOptions {
  /** Bytes per second, all disks together. */
  readonly speed: number | undefined;
  readonly limitMs: number;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
  readonly onTransfer: (progress: TransferProgress) => void;
}

/**
 * Durable when it returns. Throws what `waitForGroup` does, a DeadlineError after `limitMs`, and a CutError `E_STREAM` if an
 * image still lies on another in the end: the guest runs on in all cases, and what was copied stays.
 */
export async function streamImages(
  client: QmpClient,
  disks: readonly StartedDisk[],
  { speed, limitMs, signal, onProgress, onTransfer }: StreamOptions,
): Promise<void> {
  const deadline = new Deadline(limitMs);
  const jobs = new Map<string, StartedDisk>();
  for (const disk of disks) {
    const id = await begin(client, disk, speed === undefined ? undefined : Math.ceil(speed / disks.length));
    if (id !== undefined) jobs.set(id, disk);
  }
  const ids = [...jobs.keys()];
  const measure = measured();
  await waitForGroup(client, ids, {
    signal,
    stallMs: STALL_MS,
    onProgress: (progress) => {
      const now = measure(progress);
      onProgress(progressLine('the VM runs; copying its disks', now));
      onTransfer(now);
      if (deadline.passed) throw new DeadlineError('the disks of the VM to be copied', limitMs);
    },
  });
  for (const disk of jobs.values()) {
    await flush(client, disk);
    await checkWhole(disk.file, signal);
  }
  await finalizeGroup(client, ids, FINALIZE_MS);
  for (const disk of disks) {
    await flush(client, disk);
    const { backingName } = await referencesOf(disk.file);
    if (backingName === undefined) continue;
    throw new CutError('E_STREAM', `${disk.file} still names ${backingName} below it, though QEMU has copied all`);
  }
}

/** The job that makes the image whole, from now on or already; undefined if it is. */
async function begin(client: QmpClient, { node, file }: StartedDisk, speed?: number): Promise<string | undefined> {
  const id = `fsb-stream-${node}`;
  const [job] = await groupJobs(client, [id]);
  // It has done its work, failed, or was cancelled.
  if (job?.status === 'concluded') await dismissJob(client, id);
  else if (job !== undefined) return id;
  if ((await referencesOf(file)).backingName === undefined) return undefined;
  const how = { 'auto-finalize': false, 'auto-dismiss': false, ...defined({ speed }) } as const;
  await runQmp(client, 'block-stream', { 'job-id': id, device: node, ...how });
  return id;
}

const extents = v.array(v.object({ start: v.number(), depth: v.number(), present: v.boolean() }));

/**
 * QEMU says nothing of a flush that fails, so what is in the file is looked at. Throws a CutError `E_STREAM` if the tables in
 * it lack anything that the layers below have.
 */
export async function checkWhole(file: string, signal: AbortSignal): Promise<void> {
  const limits = { deadline: new Deadline(FLUSH_MS), signal };
  const { stdout } = await runQemuImg(['map', '-U', '--output=json', '-f', 'qcow2', file], limits);
  const missing = v.parse(extents, JSON.parse(stdout)).find(({ depth, present }) => depth > 0 && present);
  if (missing === undefined) return;
  const message = `${file} does not hold what lies below it at byte ${missing.start}: its tables could not be written?`;
  throw new CutError('E_STREAM', message);
}

// QMP has no flush, HMP's qemu-io has.
async function flush(client: QmpClient, { node, file }: StartedDisk): Promise<void> {
  const line = { 'command-line': `qemu-io ${node} "flush"` };
  const answer = (await runQmp(client, 'human-monitor-command', line, { timeoutMs: FLUSH_MS })).trim();
  if (answer !== '') throw new CutError('E_STREAM', `${file} could not be flushed: ${answer}`);
  await syncPath(file);
}
