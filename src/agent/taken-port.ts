// Explains a port that another program has open. The kernel says EBUSY and no more; the program's name says what to do.
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { BridgeError, UsageError } from '../errors.js';
import { processStat } from '../linux/process-stat.js';

interface Holder {
  readonly pid: number;
  readonly name: string;
}

/**
 * In the place of EBUSY a UsageError that names the process that has the port (starting again does not help); any other
 * error as it is, and EBUSY too if no such process is found.
 */
export function explainTakenPort(error: unknown): unknown {
  if (!(error instanceof BridgeError) || error.facts['errno'] !== 'EBUSY') return error;
  const path = String(error.facts['path']);
  let holder: Holder | undefined;
  try {
    holder = holderOf(path);
  } catch {
    // The port is gone meanwhile, or there is no file descriptor left to look with.
  }
  if (holder === undefined) return error;
  const { name, pid } = holder;
  const remedy = name === 'qemu-ga' ? 'systemctl disable --now qemu-guest-agent' : `end it, or give it another port`;
  return new UsageError('E_PORT_TAKEN', `${path} is taken by ${name} (process ${pid}): ${remedy}`, {
    cause: error,
    facts: { path, pid, name },
  });
}

/** The process that has a file open; undefined if none is found. */
export function holderOf(path: string): Holder | undefined {
  const real = realpathSync(path);
  for (const pid of otherProcesses()) {
    try {
      const isOpen = readdirSync(`/proc/${pid}/fd`).some((fd) => linkOf(`/proc/${pid}/fd/${fd}`) === real);
      if (isOpen) return { pid: Number(pid), name: nameOf(pid) };
    } catch {
      // It has ended meanwhile.
    }
  }
  return undefined;
}

/**
 * True if an agent before this one was killed and hangs in a call that the kernel does not return from (a dead disk):
 * it still has port and socket, and both come free by themselves.
 * @param program the real path of the program that agents run
 */
export function hasStuckPredecessor(program = process.execPath): boolean {
  return otherProcesses().some((pid) => {
    try {
      if (!['D', 'Z', 'X'].includes(processStat(Number(pid))?.state ?? '')) return false;
      // If the thread that hangs is not the first one, the first is a zombie and has no program any more.
      return readdirSync(`/proc/${pid}/task`).some(
        (thread) => linkOf(`/proc/${pid}/task/${thread}/exe`)?.replace(/ \(deleted\)$/, '') === program,
      );
    } catch {
      // It has ended meanwhile.
      return false;
    }
  });
}

const otherProcesses = (): readonly string[] =>
  readdirSync('/proc').filter((name) => /^\d+$/.test(name) && name !== String(process.pid));

function nameOf(pid: string): string {
  return /^\d+ \((.*)\) /s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1] ?? '';
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
