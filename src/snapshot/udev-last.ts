// While all applications wait for a cut, udev goes last (SCHED_IDLE, sched(7)): each device that LVM makes within it has
// udev start programs, and on a single processor they more than doubled the time of the second of two cuts, whatever the
// nice values. It goes on where there is time, so that whoever waits for it is served.
import { processStat, type ProcessStat } from '../linux/process-stat.js';
import { pidsNamed } from '../linux/process-names.js';
import { hasProgram, type Run } from './program.js';

/** The daemon and those that it has work for it, by the names that they had and have. */
const UDEV = new Set(['systemd-udevd', '(udev-worker)', 'udevd']);
const OTHER = 0;
const IDLE = 5;

/**
 * Until what is returned is called. Starts programs: not while anything is frozen. Neither throws: where it may not, a cut
 * takes longer. One who dies meanwhile leaves that to udevAsBefore().
 */
export async function udevLast(run: Run): Promise<() => Promise<void>> {
  const there = udevProcesses();
  const [before, others] = [pidsBy(IDLE, there), pidsBy(OTHER, there)];
  await schedule(run, '-i', others);
  return async () => {
    if (others.length === 0) return;
    // Those that it has started meanwhile, too.
    const now = pidsBy(IDLE, udevProcesses()).filter((pid) => !before.includes(pid));
    await schedule(run, '-o', now);
  };
}

/** Never throws. */
export async function udevAsBefore(run: Run): Promise<void> {
  await schedule(run, '-o', pidsBy(IDLE, udevProcesses()));
}

function udevProcesses(): readonly ProcessStat[] {
  return pidsNamed(UDEV).flatMap((pid) => processStat(pid) ?? []);
}

function pidsBy(policy: number, processes: readonly ProcessStat[]): readonly number[] {
  return processes.filter((each) => each.policy === policy).map(({ pid }) => pid);
}

/** By chrt(1), in letters that every one knows. */
async function schedule(run: Run, policy: '-i' | '-o', pids: readonly number[]): Promise<void> {
  if (pids.length === 0 || !hasProgram('chrt')) return;
  const script = `for pid; do chrt ${policy} -p 0 "$pid"; done`;
  // One may have ended, and a container may forbid it.
  await run(['/bin/sh', '-c', script, 'sh', ...pids.map(String)]).catch(() => undefined);
}
