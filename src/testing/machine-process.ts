// The process that is a guest: a QEMU, or a user-mode kernel. It is started under PDEATHSIG (setpriv of util-linux), so
// that it cannot outlive us. Its output goes to a file, and its end is a promise.
import { spawn } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { withLimit } from '../deadline.js';

export interface MachineProcess {
  readonly pid: number;
  /** Our ends of the socketpairs at its file descriptors 3, 4 ... */
  readonly lines: readonly Duplex[];
  /** Resolves when it has ended, however; never rejects. */
  readonly ended: Promise<void>;
  /** True once it has ended. */
  hasEnded(): boolean;
  /** SIGKILL, and waits for the end. */
  kill(): Promise<void>;
  /** Waits for its own end, at most `timeoutMs` (DeadlineError). */
  waitForEnd(timeoutMs: number): Promise<void>;
  /** The last 2000 characters of what it wrote to stdout and stderr so far. */
  output(): Promise<string>;
}

export interface MachineProcessOptions {
  /** A pipe that nobody writes to at standard input, instead of /dev/null. Default false. */
  readonly openStdin?: boolean;
  /** How many socketpairs it gets, at file descriptors 3, 4 ... Default 0. */
  readonly lines?: number;
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts it. Throws when it cannot be started at all; that it ends early is told by `ended`. */
export async function startMachine(
  command: readonly string[],
  logPath: string,
  { openStdin = false, lines = 0, env = {} }: MachineProcessOptions = {},
): Promise<MachineProcess> {
  await using log = await open(logPath, 'a');
  // spawn in place of execa: execa's types know no plain file descriptors, and this process needs nothing of it.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...command], {
    // Node makes a pipe that it shares with a child of a socketpair: both ends read and write.
    stdio: [openStdin ? 'pipe' : 'ignore', log.fd, log.fd, ...Array<'pipe'>(lines).fill('pipe')],
    env: { ...process.env, ...env },
    // Its own process group: a user-mode kernel that panics ends its whole group (os_dump_core), which would be us, too.
    detached: true,
  });
  let over = false;
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => {
      over = true;
      resolve();
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  const { pid } = child;
  if (pid === undefined) throw new Error('setpriv was started and has no process id');
  child.stdin?.on('error', () => undefined); // told by its end
  return {
    pid,
    lines: child.stdio.slice(3) as Duplex[],
    ended,
    hasEnded: () => over,
    kill: async () => {
      if (!over) child.kill('SIGKILL');
      await ended;
    },
    waitForEnd: async (timeoutMs) => {
      await withLimit(`end of ${command[0] ?? ''}`, timeoutMs, ended);
    },
    output: async () => (await readFile(logPath, 'utf8')).slice(-2000),
  };
}
