// A QEMU that cannot outlive us: started under PDEATHSIG (setpriv, util-linux), its output in a file, its end a promise.
import { spawn } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import { execa } from 'execa';
import { withLimit } from '../deadline.js';

export const QEMU = 'qemu-system-x86_64';

export interface QemuProcess {
  readonly pid: number;
  /** Resolves when it has ended, however; never rejects. */
  readonly ended: Promise<void>;
  /** True once it has ended. */
  hasEnded(): boolean;
  /** SIGKILL, and waits for the end. */
  kill(): Promise<void>;
  /** Waits for its own end, at most `timeoutMs` (DeadlineError). */
  waitForEnd(timeoutMs: number): Promise<void>;
  /** What QEMU wrote to stdout and stderr so far, the last 2000 characters. */
  output(): Promise<string>;
}

/** Starts QEMU. Throws when it cannot be started at all; that it ends early is told by `ended`. */
export async function startQemu(args: readonly string[], logPath: string): Promise<QemuProcess> {
  await using log = await open(logPath, 'a');
  // Not execa: its types know no plain file descriptors, and nothing of it is needed for a process that only runs.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', QEMU, ...args], { stdio: ['ignore', log.fd, log.fd] });
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
  return {
    pid,
    ended,
    hasEnded: () => over,
    kill: async () => {
      if (!over) child.kill('SIGKILL');
      await ended;
    },
    waitForEnd: async (timeoutMs) => {
      await withLimit('end of QEMU', timeoutMs, ended);
    },
    output: async () => (await readFile(logPath, 'utf8')).slice(-2000),
  };
}

let version: Promise<string> | undefined;

/** QEMU's version, as `qemu-system-x86_64 --version` prints it; asked once. */
export async function qemuVersion(): Promise<string> {
  version ??= execa(QEMU, ['--version'], { timeout: 20_000 }).then(({ stdout }) => stdout.split('\n')[0] ?? stdout);
  return await version;
}
