// `fsfreeze-snapshot writers test NAME`: a rehearsal, told while it runs and when it is over. What is done in it:
// src/freeze/session/rehearsal.ts.
import { BridgeError } from '../../errors.js';
import { rehearse, type Rehearsal, type RehearsalStep } from '../../freeze/session/rehearsal.js';
import type { ExitCode } from './exit-codes.js';
import type { GuestSettings } from './guest-settings.js';

/** Each step is told of when it has lasted for so long, and then every second. */
const PROGRESS_AFTER_MS = 2_000;
const PROGRESS_EVERY_MS = 1_000;
/** Of each stream, for people; with --json all that was kept is told. */
const LINES_SHOWN = 20;
const ROOT_UID = 0;

interface TestRequest {
  readonly name: string;
  readonly holdMs: number;
  readonly signal: AbortSignal;
  readonly progress: (text: string) => void;
}

/** Throws a BridgeError (`E_ROOT`) for anybody but root, and what rehearse() throws. */
export async function testWriter(
  { freeze }: GuestSettings,
  { name, holdMs, signal, progress }: TestRequest,
): Promise<Rehearsal> {
  if (process.geteuid?.() !== ROOT_UID) throw new BridgeError('E_ROOT', 'only root can run a writer: try sudo');
  let step: RehearsalStep | undefined;
  let sinceMs = 0;
  const timer = setInterval(() => {
    const lastedMs = performance.now() - sinceMs;
    if (step !== undefined && lastedMs >= PROGRESS_AFTER_MS)
      progress(`${name}: ${step}, ${Math.floor(lastedMs / 1000)} s`);
  }, PROGRESS_EVERY_MS);
  try {
    return await rehearse(freeze, {
      name,
      requester: `fsfreeze-snapshot writers test ${name}`,
      holdMs,
      signal,
      onStep: (next) => {
        step = next;
        sinceMs = performance.now();
      },
    });
  } finally {
    clearInterval(timer);
  }
}

export function exitCodeOfTest({ outcome, unreleased, report }: Rehearsal, signal: AbortSignal): ExitCode {
  if (unreleased !== undefined) return 6;
  if (signal.aborted || outcome === 'broken') return 69;
  return report.verdict === 'failed' ? 1 : 0;
}

/** Rows for people. */
export function describeTest(rehearsal: Rehearsal): string[] {
  const { report, pauseMs, output, unreleased, locked } = rehearsal;
  const { name, path, phases } = report;
  const rows = phases.map(({ phase, startMs, endMs, exitCode, signal, timedOut, text }) => {
    const end = timedOut ? 'TIME LIMIT' : (signal ?? (exitCode === undefined ? '' : `exit ${exitCode}`));
    return `  ${phase.padEnd(8)} ${inMs(endMs - startMs).padStart(10)}  ${end}${text === undefined ? '' : `  ${text}`}`.trimEnd();
  });
  return [
    `${name}  ${path}`,
    ...rows,
    ...(pauseMs > 0 ? [`its application stood still for ${inMs(pauseMs)}`] : []),
    // A phase's row has the first line.
    ...output
      .filter(({ text }) => text.trim().includes('\n'))
      .flatMap(({ what, text }) => [`printed in ${what}:`, ...shown(text)]),
    ...worth(rehearsal),
    ...(locked ? [] : ['there is no freezer here: no session could be kept away meanwhile']),
    ...(unreleased === undefined
      ? []
      : [`NOT LET GO: ${unreleased} (the agent tells it again when it is started anew, or after the next freeze)`]),
  ];
}

function worth({ report, level, evidence, refuses, outcome }: Rehearsal): string[] {
  const reason = report.reason === undefined ? '' : `: ${report.reason}`;
  if (outcome === 'broken') return ['BROKEN: the freezer went away meanwhile'];
  if (report.verdict === 'not-applicable') return [`not applicable: a session goes on without it${reason}`];
  const verdict = report.verdict === 'failed' ? `FAILED${reason}` : report.verdict;
  const then =
    refuses.length > 0 ? `${refuses.join(' and ')} would be refused` : `a snapshot can reach ${level} with it`;
  return [`${verdict}; ${then}`, ...evidence.map((sentence) => `  ${sentence}`)];
}

function shown(text: string): string[] {
  const lines = text.trimEnd().split('\n');
  const more = lines.length - LINES_SHOWN;
  return [
    ...lines.slice(0, LINES_SHOWN).map((line) => `  | ${line}`),
    ...(more > 0 ? [`  ... and ${more} lines more (--json has them)`] : []),
  ];
}

function inMs(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}
