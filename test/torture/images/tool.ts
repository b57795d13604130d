// Calls of the tool. What changes something runs as users get it, as a process that can be killed at an instant that was
// drawn; what only reads runs in this process, which costs no start.
import { execa } from 'execa';
import { setTimeout as sleep } from 'node:timers/promises';
import { runBridge } from '../../../src/cli/bridge/program.js';
import { HOST_TOOL } from '../../../vm-images/demo/bridge.js';
import type { Strike } from './act.js';
import type { MonitorTap } from './monitor-tap.js';

export interface Call {
  readonly words: readonly string[];
  /** Undefined if it was killed. */
  readonly code: number | undefined;
  /** The last line of stdout, if it is an object. */
  readonly json: Readonly<Record<string, unknown>> | undefined;
  readonly stderr: string;
  readonly tookMs: number;
  /** A strike was drawn, and came before the end. */
  readonly struck: boolean;
}

/** What a strike needs. */
export interface Target {
  readonly strike: Strike | undefined;
  readonly tap: MonitorTap | undefined;
  /** Of the VM. */
  readonly disks: number;
  /** SIGKILL of the VM's QEMU; its monitor is gone when it returns. */
  readonly killQemu: () => Promise<void>;
}

/** Nothing of the tool may take longer on images of a few megabytes. */
export const CALL_LIMIT_MS = 60_000;

/**
 * How much of each command there is to be struck: lines through the monitor, by the number of disks, and its time beyond
 * Node's own start.
 */
const LENGTHS: Readonly<Record<string, { readonly lines: (disks: number) => number; readonly ms: number }>> = {
  create: { lines: (disks) => 25 + 24 * disks, ms: 350 },
  commit: { lines: (disks) => 118 * disks - 30, ms: 300 },
  revert: { lines: () => 10, ms: 250 },
  delete: { lines: (disks) => 10 + 22 * disks, ms: 200 },
  copy: { lines: () => 30, ms: 250 },
  prune: { lines: (disks) => 60 * disks, ms: 300 },
  recover: { lines: (disks) => 20 + 66 * disks, ms: 300 },
};

/** How long the talk is held before a kill. */
const HELD_MS = 60;

let startMs: number | undefined;

/** How long the tool takes for nothing, on this machine as it is now. */
async function toolStartMs(): Promise<number> {
  if (startMs === undefined) {
    const begin = performance.now();
    await execa(process.execPath, [HOST_TOOL, '--version']);
    startMs = performance.now() - begin;
  }
  return startMs;
}

/** Runs it as users get it. Never throws for how it ends. */
export async function callTool(words: readonly string[], { strike, tap, disks, killQemu }: Target): Promise<Call> {
  const startOfToolMs = await toolStartMs();
  const begin = performance.now();
  const child = execa(process.execPath, [HOST_TOOL, ...words], {
    reject: false,
    stdin: 'ignore',
    timeout: CALL_LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  let isOver = false;
  let struck = false;
  const act = async (): Promise<void> => {
    if (isOver) return;
    struck = true;
    // The talk stands still meanwhile, and the guest writes on: what falls between two lines gets its chance.
    if (strike?.by === 'line') await sleep(HELD_MS);
    if (strike?.who === 'QEMU') {
      await killQemu();
      return;
    }
    // Only the tool itself: what it started goes on.
    child.kill('SIGKILL');
    await child;
  };
  const length = LENGTHS[words.find((word) => word in LENGTHS) ?? ''] ?? { lines: () => 40, ms: 300 };
  const timer = new AbortController();
  let timed: Promise<void> = Promise.resolve();
  if (strike?.by === 'line' && tap !== undefined) tap.arm(1 + Math.floor(strike.at * length.lines(disks)), act);
  else if (strike !== undefined)
    timed = sleep(startOfToolMs * (0.7 + strike.at * (0.3 + length.ms / 150)), undefined, {
      signal: timer.signal,
    }).then(act, () => undefined);
  const { stdout, stderr, exitCode, timedOut } = await child;
  isOver = true;
  timer.abort();
  await timed;
  await tap?.disarm();
  const why = timedOut ? `${stderr}\nno end within ${CALL_LIMIT_MS} ms` : stderr;
  return { words, code: exitCode, json: lastObject(stdout), stderr: why, tookMs: performance.now() - begin, struck };
}

/** Runs what only reads. */
export async function askTool(words: readonly string[]): Promise<Call> {
  const begin = performance.now();
  const out: string[] = [];
  const err: string[] = [];
  const streams = { stdout: (text: string) => void out.push(text), stderr: (text: string) => void err.push(text) };
  const code = await runBridge(words, streams, AbortSignal.timeout(CALL_LIMIT_MS));
  const tookMs = performance.now() - begin;
  return { words, code, json: lastObject(out.join('')), stderr: err.join(''), tookMs, struck: false };
}

function lastObject(stdout: string): Call['json'] {
  const last = stdout.trim().split('\n').at(-1) ?? '';
  if (!last.startsWith('{')) return undefined;
  try {
    return JSON.parse(last) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** The code and message of a refusal. */
export function errorOf({ json }: Call): { readonly code: string; readonly message: string } | undefined {
  const error = json?.['error'];
  if (typeof error !== 'object' || error === null || !('code' in error) || !('message' in error)) return undefined;
  return { code: String(error.code), message: String(error.message) };
}

/** What the tool of this build can do, of what not every one can. */
export interface Abilities {
  readonly copy: boolean;
  readonly prune: boolean;
  readonly offlineCommit: boolean;
}

let abilities: Promise<Abilities> | undefined;

export async function toolAbilities(): Promise<Abilities> {
  abilities ??= readAbilities();
  return await abilities;
}

async function readAbilities(): Promise<Abilities> {
  const help = async (...words: string[]): Promise<string> =>
    (await execa(process.execPath, [HOST_TOOL, 'snapshot', ...words, '--help'], { reject: false })).stdout;
  const [all, commit] = await Promise.all([help(), help('commit')]);
  return { copy: / copy\b/.test(all), prune: / prune\b/.test(all), offlineCommit: commit.includes('--offline') };
}
