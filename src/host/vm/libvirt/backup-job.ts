// The job of a domain's backup, known by where it goes: a domain has one job at a time, and it may be somebody else's.
// Specification: virsh(1), domjobinfo, domjobabort, backup-dumpxml, blockjob.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../../deadline.js';
import { BridgeError, DeadlineError } from '../../../errors.js';
import { readNodes } from '../../../qmp/block-graph.js';
import type { BackupTarget, TransferOptions } from '../hypervisor.js';
import { backupFiles } from './backup-xml.js';
import { runningJob, type RunningJob } from './domain-job.js';
import { isHeldBack } from './held-back.js';
import type { LibvirtMonitor } from './monitor.js';
import { VirshError, type Virsh } from './virsh.js';

const ASK_MS = 30_000;
/** A cancelled job waits for what is under way at its target. */
const ABORT_MS = 120_000;
const FIRST_POLL_MS = 20;
const POLL_MS = 500;
const CLOSED_POLL_MS = 50;
const LIMIT_ATTEMPTS = 3;

type Targets = readonly Pick<BackupTarget, 'file'>[];

export class BackupJob {
  readonly #virsh: Virsh;
  readonly #monitor: LibvirtMonitor;

  constructor(virsh: Virsh, monitor: LibvirtMonitor) {
    this.#virsh = virsh;
    this.#monitor = monitor;
  }

  /** True if libvirt's backup goes to these targets. */
  async isRunning(targets: Targets): Promise<boolean> {
    try {
      const files = backupFiles(await this.#virsh.run('backup-dumpxml', [], ASK_MS));
      return targets.some(({ file }) => files.includes(file));
    } catch (error) {
      if (error instanceof VirshError && /no domain backup job present/.test(error.reason)) return false;
      throw error;
    }
  }

  /** Sets its rate: `backup-begin` has no word for it. Throws a BridgeError if libvirt does not: nothing may be copied so fast. */
  async limit({ disk, speed }: Pick<BackupTarget, 'disk' | 'speed'>): Promise<void> {
    if (speed === undefined) return;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#virsh.run('blockjob', [disk.device, '--bandwidth', String(speed), '--bytes'], ASK_MS);
        return;
      } catch (error) {
        if (!(error instanceof VirshError)) throw error;
        // Its copy is made already. QEMU knows that a moment before libvirt, and refuses then, too.
        if (/does not have an active block job/.test(error.reason)) return;
        if (attempt === LIMIT_ATTEMPTS) {
          throw new BridgeError('E_JOB', `the limit of disk ${disk.device} cannot be set: ${error.message}`);
        }
        await sleep(POLL_MS);
      }
    }
  }

  /**
   * Returns when it is not there any more, as it was seen last; undefined if it was not seen. Throws a DeadlineError if it does not
   * get on, the signal's reason when aborted, and what `check` throws.
   */
  async untilEnded(
    targets: Targets,
    options: TransferOptions,
    check: () => Promise<void>,
  ): Promise<RunningJob | undefined> {
    const { signal, stallMs, onProgress } = options;
    const beganMs = performance.now();
    let seen: RunningJob | undefined;
    let moved = { current: -1, atMs: beganMs };
    for (let pollMs = FIRST_POLL_MS; ; pollMs = Math.min(2 * pollMs, POLL_MS)) {
      signal.throwIfAborted();
      const job = await runningJob(this.#virsh);
      const nowMs = performance.now();
      if (job === undefined || !(await this.isRunning(targets))) return seen;
      seen = job;
      await check();
      onProgress(job);
      if (job.current !== moved.current) moved = { current: job.current, atMs: nowMs };
      if (nowMs - moved.atMs > stallMs && !(await isHeldBack(this.#monitor, nowMs - beganMs))) {
        throw new DeadlineError('the backup job to get on', stallMs);
      }
      await sleep(pollMs);
    }
  }

  /** Ends it. Throws a DeadlineError if it does not end. */
  async abort(targets: Targets): Promise<void> {
    try {
      await this.#virsh.run('domjobabort', [], ABORT_MS);
    } catch (error) {
      // It ended meanwhile, or is about to: that is seen.
      if (!(error instanceof VirshError)) throw error;
    }
    const deadline = new Deadline(ABORT_MS);
    while (await this.isRunning(targets)) {
      if (deadline.passed) throw new DeadlineError('the backup job to end', ABORT_MS);
      await sleep(CLOSED_POLL_MS);
    }
  }

  /** Returns when QEMU has none of the targets open: libvirt closes them a moment after the job. */
  async untilClosed(targets: Targets, limitMs: number): Promise<void> {
    const deadline = new Deadline(limitMs);
    for (;;) {
      const open = new Set([...(await readNodes(this.#monitor)).values()].map(({ image }) => image.filename));
      const left = targets.find(({ file }) => open.has(file));
      if (left === undefined) return;
      if (deadline.passed) throw new DeadlineError(`QEMU to close ${left.file}`, limitMs);
      await sleep(CLOSED_POLL_MS);
    }
  }
}
