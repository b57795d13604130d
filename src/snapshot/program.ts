// Runs a program of the system (lvm, mount, umount, dmsetup) to its end: no shell, the C locale, a time limit. Never
// while something is frozen.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { execa } from 'execa';
import { Timer } from '../deadline.js';
import { CutError } from '../errors.js';

/** systemd's units and cron have a shorter PATH, and LVM lies in /sbin. */
export const SEARCH_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const LIMIT_MS = 60_000;
/** It goes on when nobody reads any more what it says. */
const DEAF_SCRIPT = 'trap "" PIPE; exec "$@"';
/** A shell's exit code. */
const NOT_FOUND = 127;

interface Ran {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export type Run = (words: readonly [string, ...string[]], input?: string) => Promise<Ran>;

/**
 * Throws a CutError if the program is not there, is ended by a signal or does not end within a minute. It is killed then,
 * but for one that changes volumes: that goes on, since killed between suspend and resume it would leave a device
 * suspended, and all that is written to it waiting.
 */
export const runProgram: Run = async (words, input) => await runWithin({}, words, input);

interface RunLimits {
  readonly limitMs?: number;
  readonly searchPath?: string;
  /** It has nothing of our environment: it stays, and that has a backup's passwords. */
  readonly isToStay?: boolean;
}

/** As runProgram(), with another time limit, found elsewhere, or to stay. */
export async function runWithin(
  { limitMs = LIMIT_MS, searchPath = SEARCH_PATH, isToStay = false }: RunLimits,
  words: readonly [string, ...string[]],
  input?: string,
): Promise<Ran> {
  const isChange = words[0] === 'lvm' && words[1] !== 'lvs';
  const [file, ...args]: readonly [string, ...string[]] = isChange
    ? ['/bin/sh', '-c', DEAF_SCRIPT, 'sh', ...words]
    : words;
  const child = execa(file, args, {
    ...(input === undefined ? { stdin: 'ignore' } : { input }),
    env: { LC_ALL: 'C', PATH: searchPath },
    extendEnv: !isToStay,
    ...(isChange ? {} : { timeout: limitMs, killSignal: 'SIGKILL' }),
    reject: false,
    // What a terminal sends to its foreground must not end half a change of metadata.
    detached: true,
    cleanup: false,
  });
  const ended = isChange ? await endedWithin(limitMs, child) : await child;
  const fail = (why: string): never => {
    throw new CutError('E_PROVIDER', `${words.join(' ')}: ${why}`, { facts: { file: words[0] } });
  };
  const late = `no end within ${limitMs / 1000} s`;
  if (ended === undefined)
    return fail(`${late}: it goes on as process ${child.pid ?? 0}, since a change of volumes must not be broken off`);
  const { exitCode, stdout, stderr, code, timedOut, signal, originalMessage } = ended;
  if (exitCode === NOT_FOUND && isChange) return fail('it is not installed');
  if (exitCode !== undefined) return { exitCode, stdout, stderr };
  if (timedOut) return fail(late);
  return fail(signal ?? (code === 'ENOENT' ? 'it is not installed' : originalMessage) ?? 'it could not be run');
}

interface Leavable<T> extends PromiseLike<T> {
  readonly stdout: Readable;
  readonly stderr: Readable;
  unref(): void;
}

/** What became of it; undefined if it has not ended by then: it goes on, and keeps nobody waiting any more. */
export async function endedWithin<T extends object>(limitMs: number, child: Leavable<T>): Promise<T | undefined> {
  const timer = new Timer();
  const ended = await Promise.race([child, timer.after(limitMs, undefined)]);
  timer.clear();
  if (ended !== undefined) return ended;
  child.unref();
  for (const stream of [child.stdout, child.stderr]) stream.destroy();
  return undefined;
}

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
