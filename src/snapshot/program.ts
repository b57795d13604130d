// Runs a program of the system (lvm, mount, umount, dmsetup) to its end: no shell, the C locale, a time limit. Never
// while something is frozen.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { CutError } from '../errors.js';

/** systemd's units and cron have a shorter PATH, and LVM lies in /sbin. */
export const SEARCH_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const LIMIT_MS = 60_000;

interface Ran {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export type Run = (words: readonly [string, ...string[]], input?: string) => Promise<Ran>;

/** Throws a CutError if the program is not there, is ended by a signal or does not end within a minute. */
export const runProgram: Run = async ([file, ...args], input) => {
  const { exitCode, stdout, stderr, code, timedOut, signal, originalMessage } = await execa(file, args, {
    ...(input === undefined ? { stdin: 'ignore' } : { input }),
    env: { LC_ALL: 'C', PATH: SEARCH_PATH },
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
    reject: false,
    // What a terminal sends to its foreground must not end half a change of metadata.
    detached: true,
    cleanup: false,
  });
  if (exitCode !== undefined) return { exitCode, stdout, stderr };
  const why = timedOut
    ? `no end within ${LIMIT_MS / 1000} s`
    : (signal ?? (code === 'ENOENT' ? 'it is not installed' : originalMessage));
  throw new CutError('E_PROVIDER', `${[file, ...args].join(' ')}: ${why ?? 'it could not be run'}`, {
    facts: { file },
  });
};

export function hasProgram(name: string): boolean {
  return SEARCH_PATH.split(':').some((folder) => existsSync(join(folder, name)));
}

/** Throws a CutError with what it said, unless it ends with 0. Gives what it printed. */
export async function mustRun(run: Run, words: readonly [string, ...string[]]): Promise<string> {
  const { exitCode, stdout, stderr } = await run(words);
  if (exitCode === 0) return stdout;
  throw new CutError('E_PROVIDER', `${words.join(' ')}: exit code ${exitCode}: ${lastWords(stderr || stdout)}`, {
    facts: { exitCode },
  });
}

/** LVM warns on stderr before it says what failed. */
function lastWords(text: string): string {
  const lines = text.split('\n').map((line) => line.trim());
  const telling = lines.filter((line) => line !== '' && !line.startsWith('WARNING:'));
  return telling.join('; ').slice(-500) || 'it said nothing';
}
