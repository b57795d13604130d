// QEMU counts against the rate of a job what it copies because the guest is about to overwrite it, and holds the job back
// until its rate has caught up: minutes, after a burst of gigabytes. libvirt sets no other rate meanwhile without waiting
// for the job, so one waits for as long as that takes. Specification: QEMU qapi/block-core.json (BlockJobInfo).
import { runQmp } from '../../../qmp/commands.js';
import type { Monitor } from '../../../qmp/monitor.js';

/**
 * True if a backup job has copied more in the time since it began than its rate allows: one that stands still does so for that.
 * One that is paused does not. Throws what the monitor throws.
 */
export async function isHeldBack(monitor: Monitor, sinceMs: number): Promise<boolean> {
  const jobs = await runQmp(monitor, 'query-block-jobs', {});
  return jobs.some(
    ({ type, offset, speed, paused }) => type === 'backup' && !paused && speed > 0 && offset > (speed * sinceMs) / 1000,
  );
}
