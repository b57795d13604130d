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

/** Copied at once, after which a job waits for what its rate allows. */
const BURST_BYTES = 4 * 1024 * 1024;
const LEAST_STILL_MS = 500;

interface Rate {
  /** As the job was told. */
  speed: number;
  /** When it was seen to move, by `performance.now()`, and how far it had come. */
  movedMs: number;
  current: number;
  /** Times its share. */
  times: number;
}

export class JobRates {
  readonly #client: Monitor;
  readonly #rates: ReadonlyMap<string, Rate>;

  constructor(client: Monitor, targets: readonly BackupTarget[]) {
    this.#client = client;
    const [movedMs, current, times] = [performance.now(), 0, 1];
    this.#rates = new Map(targets.map(({ jobId, speed = NO_LIMIT }) => [jobId, { speed, movedMs, current, times }]));
  }

  /**
   * Throws what the monitor throws, unless the job has copied all it had to meanwhile. QEMU counts what a job copies because the
   * guest is about to overwrite it, and holds the job back for that, for minutes even: one that stands still gets twice its
   * share, and twice that, until it moves.
   */
  async set(jobs: readonly JobInfo[], rate: number | undefined): Promise<void> {
    const running = jobs.filter(({ status }) => status === 'running');
    for (const job of running) {
      const known = this.#rates.get(job.id);
      if (known === undefined) continue;
      if (rate === undefined) await this.#tell(job.id, known, NO_LIMIT);
      else {
        follow(known, job['current-progress']);
        const speed = shareOf(rate, running.length) * known.times;
        await this.#tell(job.id, known, Math.min(speed, Number.MAX_SAFE_INTEGER));
      }
    }
  }

  async #tell(id: string, known: Rate, speed: number): Promise<void> {
    if (known.speed === speed) return;
    try {
      await runQmp(this.#client, 'block-job-set-speed', { device: id, speed });
      known.speed = speed;
    } catch (error) {
      const [job] = await groupJobs(this.#client, [id]);
      if (job?.status === 'running') throw error;
    }
  }
}

function follow(rate: Rate, current: number): void {
  const nowMs = performance.now();
  if (current !== rate.current) Object.assign(rate, { current, movedMs: nowMs, times: 1 });
  else if (nowMs - rate.movedMs >= stillMs(rate)) Object.assign(rate, { movedMs: nowMs, times: rate.times * 2 });
}

/** A job that has not moved for so long is not merely between two pieces. */
function stillMs({ speed }: Rate): number {
  return Math.max(LEAST_STILL_MS, (2 * 1000 * BURST_BYTES) / Math.max(1, speed));
}
