// Signals process groups as a whole, and ends them: SIGTERM, a short grace, SIGKILL. Waiting has a limit: a process in
// the middle of a system call may outlive SIGKILL for long, and then nobody waits for it.
import { writeFileSync } from 'node:fs';
import { Timer } from '../deadline.js';

/** Between SIGTERM and SIGKILL. The other applications may stand still meanwhile. */
export const TERM_GRACE_MS = 250;
const REAP_LIMIT_MS = 1_000;
/** For the rest of a group to follow its leader; where init does not reap, it stays for ever. */
const FOLLOW_LIMIT_MS = 200;
const FOLLOW_STEP_MS = 5;

/**
 * The agent is spared when memory runs out, and a program that it starts inherits that: takes it back. Never throws.
 */
export function resetOomScore(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, '0');
  } catch {
    // It has ended.
  }
}

/** Signals a process group, if there still is one. Never throws. */
export function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: the whole group is gone.
  }
}

/** Some process of the group is there, a zombie too. */
export function groupExists(pid: number): boolean {
  try {
    process.kill(-pid, 0);
    return true;
  } catch {
    return false;
  }
}

function groupHas(pid: number | undefined): boolean {
  return pid !== undefined && groupExists(pid);
}

/** Ends the group. `exit`: that of its leader, which is given back; `stays` if SIGKILL did not end it in time. */
export async function endGroup<T>(pid: number | undefined, exit: Promise<T>): Promise<T | 'stays'> {
  const timer = new Timer();
  try {
    killGroup(pid, 'SIGTERM');
    const first = await Promise.race([exit, timer.after(TERM_GRACE_MS, 'stays' as const)]);
    // The leader may have gone and left children that ignored SIGTERM.
    killGroup(pid, 'SIGKILL');
    const last = first === 'stays' ? await Promise.race([exit, timer.after(REAP_LIMIT_MS, 'stays' as const)]) : first;
    for (let waited = 0; last !== 'stays' && groupHas(pid) && waited < FOLLOW_LIMIT_MS; waited += FOLLOW_STEP_MS)
      await timer.after(FOLLOW_STEP_MS, undefined);
    return last;
  } finally {
    timer.clear();
  }
}
