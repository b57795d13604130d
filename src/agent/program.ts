// Runs a tool of the guest for a command: no shell, a session of its own, a time limit at which its whole group is
// killed, the C locale. Programs of guest-exec: exec-children.ts.
import { accessSync, constants as fsConstants } from 'node:fs';
import { constants } from 'node:os';
import { execa } from 'execa';
import { defined } from '../defined.js';
import { withLimit } from '../deadline.js';
import { BridgeError } from '../errors.js';
import { killGroup } from '../linux/process-group.js';
import { refuse, type Compat } from '../qga/server.js';
import { errnoName, errnoText } from './errno-text.js';
import { packageHint } from './tools.js';

export interface ProgramOptions {
  readonly limitMs: number;
  readonly input?: Uint8Array;
}

export interface ProgramResult {
  /** Absent if a signal ended it. */
  readonly exitCode?: number;
  readonly stdout: string;
  /** Both streams, as they came. */
  readonly output: string;
}

/**
 * Throws a BridgeError if the program cannot be started (`E_NO_PROGRAM` if it is not there) or does not end in time.
 */
export type RunProgram = (file: string, args: readonly string[], options: ProgramOptions) => Promise<ProgramResult>;

const OUTPUT_LIMIT_BYTES = 8 * 1024 * 1024;
/** Where tools are looked for. systemd's units have a shorter PATH; qemu-ga names those in /sbin by path. */
export const SEARCH_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export const runProgram: RunProgram = async (file, args, { limitMs, input }) => {
  const child = execa(file, [...args], {
    ...(input === undefined ? { stdin: 'ignore' } : { input }),
    env: { LC_ALL: 'C', PATH: SEARCH_PATH },
    all: true,
    detached: true,
    cleanup: false,
    reject: false,
    stripFinalNewline: false,
    maxBuffer: OUTPUT_LIMIT_BYTES,
  });
  try {
    const { exitCode, signal, stdout, all, failed, code, cause } = await withLimit(file, limitMs, child);
    if (failed && exitCode === undefined && signal === undefined) {
      const why = errnoText(cause);
      throw new BridgeError(
        code === 'ENOENT' ? 'E_NO_PROGRAM' : 'E_PROGRAM',
        `cannot run '${file}'${code === 'ENOENT' ? packageHint(file) : ''}: ${why}`,
        {
          cause,
          facts: { file, errno: code ?? errnoName(cause) },
        },
      );
    }
    return { ...defined({ exitCode }), stdout, output: all };
  } catch (error) {
    killGroup(child.pid, 'SIGKILL');
    throw error;
  }
};

/**
 * Runs a program for its effect. If it fails, throws a RemoteError with qemu-ga's text: 10.2 quotes what it said.
 * @param action as in `child process has failed to ACTION`
 */
export async function runAction(
  run: RunProgram,
  compat: Compat,
  action: string,
  [file, ...args]: readonly [string, ...string[]],
  options: ProgramOptions,
): Promise<void> {
  const result = await startAction(run, file, args, options);
  const { exitCode, output } = result;
  if (exitCode === 0) return;
  const said = output === '' || compat === '7.2' ? '' : `: ${output}`;
  if (exitCode === undefined) refuse(`child process has terminated abnormally${said}`);
  if (compat === '7.2') {
    refuse(action === HWCLOCK_ACTION ? `hwclock failed to ${action}` : `child process has failed to ${action}`);
  }
  refuse(`child process has failed to ${action}${said === '' ? `: exit status ${exitCode}` : said}`);
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, fsConstants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export const HWCLOCK_ACTION = 'set hardware clock to system time';

async function startAction(
  run: RunProgram,
  file: string,
  args: readonly string[],
  options: ProgramOptions,
): Promise<ProgramResult> {
  try {
    return await run(file, args, options);
  } catch (error) {
    const errno = error instanceof BridgeError ? error.facts['errno'] : undefined;
    const known: Readonly<Record<string, number>> = constants.errno;
    if (typeof errno !== 'string' || known[errno] === undefined) throw error;
    // The words that qemu-ga's forked child writes before it gives up, and the package that has the program.
    const why = errnoText(Object.assign(new Error(errno), { code: errno }));
    const hint = errno === 'ENOENT' ? packageHint(file) : '';
    return { exitCode: 1, stdout: '', output: `failed to exec '${file}': ${why}${hint}\n` };
  }
}
