// Runs a program as one phase of one writer: in a process group of its own, which is ended at its time limit, when told
// to, and when it floods. Knows nothing of what phases mean. What it prints: output.ts. Writers that live from prepare
// to thaw: resident.ts.
import { execa } from 'execa';
import { defined } from '../../defined.js';
import { monotonicMs } from '../../linux/clock.js';
import { AbortWait, Timer } from '../../deadline.js';
import { endGroup, groupExists, resetOomScore } from '../../linux/process-group.js';
import { FLOOD_BYTES, FLOOD_CHECK_MS, WriterOutput, type LeftOutput } from './output.js';

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
  /** Takes over the output where processes are left behind. */
  readonly left?: LeftOutput;
  /** Called when those flood. */
  readonly onFlood?: (reason: string) => void;
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
  /** How it went wrong: it was never started, it broke a rule and was killed, or it ended where it must not. */
  readonly fault?: string;
  /** Of a resident writer, which answers instead of exiting. */
  readonly answer?: 'ok' | 'error';
  /** First line of stderr, else of stdout; of a resident writer, the reason of its `error`. */
  readonly text?: string;
}

/** Nothing of this has come about. */
export const noEvents = { timedOut: false, aborted: false, unkillable: false } as const;

export const FLOOD_FAULT = `printed more than ${FLOOD_BYTES / 1024 / 1024} MiB`;

/** Never throws. An abort ends the process as its limit would. Times are those of CLOCK_MONOTONIC. */
export async function runProcess(request: ProcessRequest, signal?: AbortSignal): Promise<ProcessResult> {
  const startMs = monotonicMs();
  const result = (rest: Partial<ProcessResult>): ProcessResult => ({
    ...noEvents,
    ...rest,
    startMs,
    endMs: monotonicMs(),
  });
  if (signal?.aborted === true) return result({ aborted: true });
  const output = new WriterOutput(request.outputDir, request.label);
  let group: number | undefined;
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
    group = child.pid;
    resetOomScore(group);
    if (group !== undefined) request.onStart?.(group);
    const exit = child.then(exitOf);
    const ending = await endOf(group, exit, request.limitMs, signal, () => output.keepSmall());
    const text = ending.fault === undefined || ending.fault === FLOOD_FAULT ? output.firstLine() : undefined;
    return result({ ...ending, ...defined({ text }) });
  } finally {
    const { left, onFlood } = request;
    if (left !== undefined && group !== undefined && groupExists(group))
      left.watch(output, group, () => {
        onFlood?.(`what its ${request.label} left running ${FLOOD_FAULT}`);
      });
    else output.close();
  }
}

export type Exit = Pick<ProcessResult, 'exitCode' | 'signal' | 'fault'>;

/** The end of a process as execa tells it; if the program could not be started, that is its fault. */
export function exitOf(said: {
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  readonly failed: boolean;
  readonly cause?: unknown;
  readonly originalMessage?: string | undefined;
}): Exit {
  const { exitCode, signal, failed, cause, originalMessage } = said;
  return {
    ...defined({ exitCode, signal }),
    ...(failed && exitCode === undefined && signal === undefined
      ? { fault: `cannot be started: ${message(cause ?? originalMessage)}` }
      : {}),
  };
}

// Waits for the exit; at the limit, the abort or a flood ends the group, first kindly.
async function endOf(
  pid: number | undefined,
  exit: Promise<Exit>,
  limitMs: number,
  signal: AbortSignal | undefined,
  floods: () => boolean,
): Promise<Partial<ProcessResult>> {
  const limit = new Timer();
  const abort = new AbortWait(signal);
  let watcher: NodeJS.Timeout | undefined;
  const flooded = new Promise<'flooded'>((resolve) => {
    watcher = setInterval(() => {
      if (floods()) resolve('flooded');
    }, FLOOD_CHECK_MS);
  });
  try {
    const first = await Promise.race([exit, limit.after(limitMs, 'timedOut' as const), abort.aborted, flooded]);
    if (typeof first !== 'string') return first;
    const last = await endGroup(pid, exit);
    return {
      ...(last === 'stays' ? { unkillable: true } : last),
      ...(first === 'flooded' ? { fault: FLOOD_FAULT } : { [first]: true }),
    };
  } finally {
    clearInterval(watcher);
    limit.clear();
    abort.clear();
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
