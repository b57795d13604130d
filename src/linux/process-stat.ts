// Reads /proc/PID/stat (proc_pid_stat(5)). A pid and a start time together name one process for good; a pid alone may
// be another's by now. The kernel takes no lock of the process to make this file, so that reading it never blocks.
import { readFileSync } from 'node:fs';

export interface ProcessStat {
  readonly pid: number;
  /** One letter; `Z` and `X` have ended, and wait for nobody but their parent. */
  readonly state: string;
  /** Process group and session; both are the pid of a process that was started `detached`. */
  readonly group: number;
  readonly session: number;
  /** Clock ticks since the machine was started, as text: it is only compared. */
  readonly startTime: string;
}

/** Undefined if there is no such process. Never throws. */
export function processStat(pid: number): ProcessStat | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name, in parentheses, may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state = '', , group, session] = fields;
    const startTime = fields[19];
    return startTime === undefined
      ? undefined
      : { pid, state, group: Number(group), session: Number(session), startTime };
  } catch {
    return undefined;
  }
}

/** It is still that process, and has not ended. */
export function stillRuns({ pid, startTime }: { readonly pid: number; readonly startTime: string }): boolean {
  const now = processStat(pid);
  return now?.startTime === startTime && !hasEnded(now);
}

export function hasEnded({ state }: ProcessStat): boolean {
  return state === 'Z' || state === 'X';
}
