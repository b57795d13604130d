// Runs one phase of one writer: a process group of its own, real files on tmpfs for its output (a daemon that keeps
// them open holds nobody up), a time limit, and the group killed at the limit. Knows nothing of phases' meaning.
import { execa } from 'execa';
import { closeSync, fstatSync, ftruncateSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { monotonicMs } from './clock.js';

/** A process in the middle of a system call may outlive SIGKILL for long: then nobody waits for it. */
const REAP_LIMIT_MS = 1_000;
/** Between SIGTERM and SIGKILL. It is time the other applications stand still. */
const TERM_GRACE_MS = 250;
/** Output beyond this is thrown away while it is written: tmpfs is memory. */
const OUTPUT_BYTES = 64 * 1024;
const FLOOD_CHECK_MS = 50;

export interface ProcessRequest {
  /** Names the output files; without slashes. */
  readonly label: string;
  readonly file: string;
  readonly args: readonly string[];
  /** Complete: nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  readonly limitMs: number;
  /** Directory on tmpfs. */
  readonly outputDir: string;
  /** Called as soon as it runs. Must not throw. */
  readonly onStart?: (pid: number) => void;
}

export interface ProcessResult {
  readonly startMs: number;
  readonly endMs: number;
  readonly exitCode?: number;
  readonly signal?: string;
  /** Killed because its limit had passed. */
  readonly timedOut: boolean;
  /** Killed because the signal was aborted. */
  readonly aborted: boolean;
  /** Still there after SIGKILL. */
  readonly unkillable: boolean;
  /** First line of stderr, else of stdout; else why it could not be started. */
  readonly text?: string;
}

/** Never throws. Aborting ends the process as its limit would. Times are those of CLOCK_MONOTONIC. */
export async function runProcess(request: ProcessRequest, signal?: AbortSignal): Promise<ProcessResult> {
  const startMs = monotonicMs();
  const result = (rest: Omit<ProcessResult, 'startMs' | 'endMs'>): ProcessResult => ({
    startMs,
    endMs: monotonicMs(),
    ...rest,
  });
  const idle = { timedOut: false, aborted: false, unkillable: false };
  if (signal?.aborted === true) return result({ ...idle, aborted: true });
  let output: Output;
  try {
    output = new Output(request.outputDir, request.label);
  } catch (error) {
    return result({ ...idle, text: `cannot be started: ${message(error)}` });
  }
  try {
    const child = execa(request.file, [...request.args], {
      env: { ...request.env },
      extendEnv: false,
      cwd: '/',
      // Its types know descriptors up to 9; spawn(2) takes any.
      stdio: ['ignore', output.out as 3, output.err as 3],
      detached: true,
      cleanup: false,
      reject: false,
      buffer: false,
    });
    if (child.pid !== undefined) request.onStart?.(child.pid);
    const exit = child.then(({ exitCode, signal: killer, cause, failed, originalMessage }) => ({
      ...(exitCode === undefined ? {} : { exitCode }),
      ...(killer === undefined ? {} : { signal: killer }),
      ...(failed && exitCode === undefined && killer === undefined
        ? { startError: message(cause ?? originalMessage) }
        : {}),
    }));
    const ending = await endOf(child.pid, exit, request.limitMs, signal, () => {
      output.keepSmall();
    });
    const { startError, ...rest } = ending;
    const text = startError === undefined ? output.firstLine() : `cannot be started: ${startError}`;
    return result({ ...idle, ...rest, ...(text === undefined ? {} : { text }) });
  } finally {
    output.close();
  }
}

interface Exit {
  readonly exitCode?: number;
  readonly signal?: string;
  readonly startError?: string;
}
type Ending = Exit & Partial<Pick<ProcessResult, 'timedOut' | 'aborted' | 'unkillable'>>;

// Waits for the exit; at the limit or the abort kills the group, first kindly.
async function endOf(
  pid: number | undefined,
  exit: Promise<Exit>,
  limitMs: number,
  signal: AbortSignal | undefined,
  watch: () => void,
): Promise<Ending> {
  const watcher = setInterval(watch, FLOOD_CHECK_MS);
  const limit = new Timer();
  let onAbort = (): void => undefined;
  const aborted = new Promise<'aborted'>((resolve) => {
    onAbort = () => {
      resolve('aborted');
    };
    signal?.addEventListener('abort', onAbort);
  });
  try {
    const first = await Promise.race([exit, limit.after(limitMs, 'timedOut' as const), aborted]);
    if (typeof first !== 'string') return first;
    killGroup(pid, 'SIGTERM');
    const second = await Promise.race([exit, limit.after(TERM_GRACE_MS, 'stays' as const)]);
    // The leader may have gone and left children that ignored SIGTERM.
    killGroup(pid, 'SIGKILL');
    const last = second === 'stays' ? await Promise.race([exit, limit.after(REAP_LIMIT_MS, 'stays' as const)]) : second;
    return { ...(last === 'stays' ? { unkillable: true } : last), [first]: true };
  } finally {
    clearInterval(watcher);
    limit.clear();
    signal?.removeEventListener('abort', onAbort);
  }
}

/** Signals a process group, if there still is one. */
export function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: the whole group is gone.
  }
}

class Timer {
  #timers: NodeJS.Timeout[] = [];

  async after<T>(ms: number, value: T): Promise<T> {
    return await new Promise((resolve) => {
      this.#timers.push(
        setTimeout(() => {
          resolve(value);
        }, ms),
      );
    });
  }

  clear(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }
}

/** Two files, appended to, so that cutting them off restarts them. */
class Output {
  readonly out: number;
  readonly err: number;
  readonly #heads = new Map<number, string>();

  constructor(dir: string, label: string) {
    this.out = openSync(join(dir, `${label}.out`), 'a+', 0o600);
    try {
      this.err = openSync(join(dir, `${label}.err`), 'a+', 0o600);
    } catch (error) {
      closeSync(this.out);
      throw error;
    }
  }

  keepSmall(): void {
    for (const fd of [this.out, this.err]) {
      if (fstatSync(fd).size <= OUTPUT_BYTES) continue;
      if (!this.#heads.has(fd)) this.#heads.set(fd, this.#head(fd));
      ftruncateSync(fd, 0);
    }
  }

  firstLine(): string | undefined {
    const line = (fd: number): string | undefined =>
      (this.#heads.get(fd) ?? this.#head(fd))
        .split('\n')
        .map((text) => text.trim())
        .find((text) => text !== '')
        ?.slice(0, 500);
    return line(this.err) ?? line(this.out);
  }

  close(): void {
    this.keepSmall();
    closeSync(this.out);
    closeSync(this.err);
  }

  #head(fd: number): string {
    const head = Buffer.alloc(4096);
    return head.subarray(0, readSync(fd, head, 0, head.length, 0)).toString('utf8');
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
