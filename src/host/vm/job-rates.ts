// The rates of jobs that copy disks, and share one rate. Specification: QEMU qapi/block-core.json (block-job-set-speed).
import { runQmp, type JobInfo } from '../../qmp/commands.js';
import { groupJobs } from '../../qmp/job-group.js';
import type { Monitor } from '../../qmp/monitor.js';
import type { BackupTarget } from './hypervisor.js';

const NO_LIMIT = 0;

/** What each of so many has of it: bytes per second. */
export function shareOf(rate: number, among: number): number {
  return Math.max(1, Math.floor(rate / among));
}

export class JobRates {
  readonly #client: Monitor;
  readonly #set: Map<string, number>;

  constructor(client: Monitor, targets: readonly BackupTarget[]) {
    this.#client = client;
    this.#set = new Map(targets.map(({ jobId, speed = NO_LIMIT }) => [jobId, speed]));
  }

  /** Throws what the monitor throws, unless the job has copied all it had to meanwhile. */
  async set(jobs: readonly JobInfo[], rate: number | undefined): Promise<void> {
    const running = jobs.filter(({ status }) => status === 'running');
    for (const { id } of running) {
      const speed = rate === undefined ? NO_LIMIT : shareOf(rate, running.length);
      if (this.#set.get(id) === speed) continue;
      try {
        await runQmp(this.#client, 'block-job-set-speed', { device: id, speed });
        this.#set.set(id, speed);
      } catch (error) {
        const [job] = await groupJobs(this.#client, [id]);
        if (job?.status === 'running') throw error;
      }
    }
  }
}
