// Reads the names of all processes that run (/proc/PID/comm, proc_pid_comm(5)).
import { closeSync, openSync, readSync } from 'node:fs';
import { namesIn } from './kernel-values.js';

/** The kernel keeps as many characters of a program's name. */
export const PROCESS_NAME_CHARACTERS = 15;

/** Longer than any of these files: a name may hold bytes of any kind, and kernel threads have longer ones. */
const comm = Buffer.alloc(256);

/**
 * The names of all processes, those in containers and those of the kernel included. One pass: a shell, which reads byte
 * by byte, takes some fifty times as long. Never throws.
 */
export function processNames(): ReadonlySet<string> {
  const names = new Set<string>();
  for (const pid of namesIn('/proc')) if (/^\d+$/.test(pid)) names.add(nameOf(pid));
  return names;
}

/** Who bears one of these names, as processNames() gives them. Never throws. */
export function pidsNamed(names: ReadonlySet<string>): readonly number[] {
  return namesIn('/proc')
    .filter((pid) => /^\d+$/.test(pid) && names.has(nameOf(pid)))
    .map(Number);
}

/** Empty if it has ended. */
function nameOf(pid: string): string {
  let fd: number | undefined;
  try {
    fd = openSync(`/proc/${pid}/comm`, 'r');
    return comm.toString('utf8', 0, readSync(fd, comm, 0, comm.length, 0)).replace(/\n$/, '');
  } catch {
    return '';
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
