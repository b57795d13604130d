// Runs a program as one phase of one writer: in a process group of its own, which is ended at its time limit, when told
// to, and when it floods. Knows nothing of what phases mean. What it prints: output.ts. Writers that live from prepare
// to thaw: resident.ts.
import { execa } from 'execa';
import { defined } from '../../defined.js';
import { monotonicMs } from '../../linux/clock.js';
import { AbortWait, Timer } from '../../deadline.js';
import { endGroup, groupExists, resetOomScore } from '../../linux/process-group.js';
import { processStat } from '../../linux/process-stat.js';
import { FLOOD_BYTES, WriterOutput, type OutputWatch } from './output.js';
import { noEvents, type Answer } from './peer.js';

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
  /** Called as soon as it runs, with what names it for good. Must not throw. */
  readonly onStart?: (pid: number, startTime: string) => void;
  /** Watches the output, and takes it over where processes are left behind. */
  readonly watch: OutputWatch;
  /** Called when those flood. */
  readonly onFlood?: (reason: string) => void;
}

export const FLOOD_FAULT = `printed more than ${FLOOD_BYTES / 1024 / 1024} MiB`;

/** Never throws. An abort ends the process as its limit would. Times are those of CLOCK_MONOTONIC. */
export async function runProcess(request: ProcessRequest, signal?: AbortSignal): Promise<Answer> {
  const startMs = monotonicMs();
  const result = (rest: Partial<Answer>): Answer => ({
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
    if (group !== undefined) request.onStart?.(group, processStat(group)?.startTime ?? '');
    const exit = child.then(exitOf);
    const ending = await endOf(group, exit, request, output, signal);
    const text = ending.fault === undefined || ending.fault === FLOOD_FAULT ? output.firstLine() : undefined;
    return result({ ...ending, ...defined({ text }) });
  } finally {
    const { watch, onFlood } = request;
    if (group !== undefined && groupExists(group))
      watch.keep(output, group, () => {
        onFlood?.(`what its ${request.label} left running ${FLOOD_FAULT}`);
      });
    else output.close();
  }
}

export type Exit = Pick<Answer, 'exitCode' | 'signal' | 'fault'>;

/** The end of a process as execa tells it; if the program could not be started, that is its fault. */
function exitOf(said: {
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
  { limitMs, watch }: ProcessRequest,
  output: WriterOutput,
  signal: AbortSignal | undefined,
): Promise<Partial<Answer>> {
  const limit = new Timer();
  const abort = new AbortWait(signal);
  const flooded = new Promise<'flooded'>((resolve) => {
    watch.add(output, () => {
      resolve('flooded');
    });
  });
  try {
    const first = await Promise.race([exit, limit.after(limitMs, 'timedOut' as const), abort.aborted, flooded]);
    if (typeof first !== 'string') return first;
    const last = await endGroup(pid, exit);
    const why = first === 'flooded' ? { fault: FLOOD_FAULT } : { [first]: true };
    if (last === 'stays') return { unkillable: true, ...why };
    // How one that floods ends then is our doing: its exit code is no answer.
    return first === 'flooded' ? why : { ...last, ...why };
  } finally {
    watch.remove(output);
    limit.clear();
    abort.clear();
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
