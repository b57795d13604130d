// Reads /proc/PID/stat (proc_pid_stat(5)). A pid and a start time together name one process for good; a pid alone may
// be another's by now. The kernel takes no lock of the process to make this file, so that reading it never blocks.
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

export interface ProcessStat {
  readonly pid: number;
  /** One letter; `Z` and `X` have ended, and wait for nobody but their parent. */
  readonly state: string;
  /** Process group and session; both are the pid of a process that was started `detached`. */
  readonly group: number;
  readonly session: number;
  /** Clock ticks since the machine was started, as text: it is only compared. */
  readonly startTime: string;
  /** How it is scheduled (sched(7)): 0 as all others, 5 only when nobody else would run. */
  readonly policy: number;
}

/** Undefined if there is no such process. Never throws. */
export function processStat(pid: number): ProcessStat | undefined {
  try {
    return parseStat(pid, readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return undefined;
  }
}

function parseStat(pid: number, stat: string): ProcessStat | undefined {
  // The name, in parentheses, may hold anything.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state = '', , group, session] = fields;
  const startTime = fields[19];
  return startTime === undefined
    ? undefined
    : { pid, state, group: Number(group), session: Number(session), startTime, policy: Number(fields[38]) };
}

/** Longer than a line of this file can be: a name of 64 bytes and 52 numbers. */
const line = Buffer.alloc(2_048);

/**
 * The same file, kept open: it stays that of the process it was opened for, whoever has its pid later, and is read again
 * in a fraction of the time. Its process must be a child that was not waited for yet.
 */
export class OpenProcessStat {
  /** Empty if there was no such process. */
  readonly startTime: string;
  readonly #pid: number;
  #fd: number | undefined;

  /** Never throws. */
  constructor(pid: number) {
    this.#pid = pid;
    try {
      this.#fd = openSync(`/proc/${pid}/stat`, 'r');
    } catch {
      this.#fd = undefined;
    }
    this.startTime = this.#read()?.startTime ?? '';
  }

  /** It has not ended. Never throws. */
  get runs(): boolean {
    const stat = this.#read();
    return stat !== undefined && !hasEnded(stat);
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #read(): ProcessStat | undefined {
    if (this.#fd === undefined) return undefined;
    try {
      return parseStat(this.#pid, line.toString('latin1', 0, readSync(this.#fd, line, 0, line.length, 0)));
    } catch {
      // ESRCH: it was waited for.
      return undefined;
    }
  }
}

/** One process for good. */
export type ProcessId = Pick<ProcessStat, 'pid' | 'startTime'>;

/** It is still that process, and has not ended. */
export function stillRuns({ pid, startTime }: ProcessId): boolean {
  const now = processStat(pid);
  return now?.startTime === startTime && !hasEnded(now);
}

export function hasEnded({ state }: ProcessStat): boolean {
  return state === 'Z' || state === 'X';
}
