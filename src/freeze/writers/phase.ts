// One phase of one writer: what it is started with (environment, arguments, scratch), the checks before root runs it
// again, and what its exit or answer means (fsfreeze-hook.d/README.md, "Exit codes"). Who runs when: writer-set.ts.
import { defined } from '../../defined.js';
import type { outcomes, PhaseReport, WriterPhase } from '../../consistency.js';
import { describeError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import { ResidentWriter } from './resident.js';
import { mountpointLines, type SessionRecord } from './record.js';
import type { Writer } from './folders.js';
import type { LeftOutput } from './output.js';
import { noEvents, runProcess, type ProcessResult } from './process.js';
import { whyUnsafeNow } from './safety.js';

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** execve(2) takes 128 KiB for one word (MAX_ARG_STRLEN), and with small stacks about as much for all. */
const SHORT_LIST_BYTES = 64 * 1024;

/** How a session came out, as writers are told. */
export type SessionOutcome = Exclude<(typeof outcomes)[number], 'incomplete' | 'unreleased'>;

export interface PhaseContext {
  readonly session: string;
  readonly leaseMs: number;
  readonly mountpoints: MountpointList;
  readonly record: SessionRecord;
}

/** All mount points of the filesystems of the set, as writers are told of them. */
export interface MountpointList {
  readonly paths: readonly string[];
  /** One on a line; undefined if that is too long to be handed over when a program is started. */
  readonly short: string | undefined;
}

export function mountpointList(paths: readonly string[]): MountpointList {
  const lines = mountpointLines(paths).join('\n');
  return { paths, short: Buffer.byteLength(lines) <= SHORT_LIST_BYTES ? lines : undefined };
}

export interface PhaseOptions {
  readonly limitMs: number;
  readonly signal?: AbortSignal;
  readonly outcome?: SessionOutcome;
  readonly left?: LeftOutput;
  /** Something went wrong after the phase: what it left running. */
  readonly onLost: (reason: string) => void;
}

/** A writer that is let go need not be the one that was looked at; the others speak for what was planned. */
const releasing: readonly WriterPhase[] = ['thaw', 'abort', 'post'];

/** Runs the phase in a process of its own. Never throws. */
export async function runPhase(
  writer: Writer,
  phase: WriterPhase,
  context: PhaseContext,
  { limitMs, signal, outcome, left, onLost }: PhaseOptions,
): Promise<ProcessResult> {
  const { paths, short } = context.mountpoints;
  const isRelease = releasing.includes(phase);
  const withMountpoints = writer.kind === 'plain' && writer.folder.style === 'dragonsdawn';
  if (withMountpoints && short === undefined && !isRelease)
    return notStarted(
      `${paths.length} mount points do not fit on its command line: in /etc/fsfreeze-bridge/fsfreeze-hook.d ` +
        'it can read them from the file $FSFREEZE_MOUNTPOINTS_FILE',
    );
  const what = prepared(writer, phase, context, isRelease, { outcome, limitMs });
  if ('fault' in what) return what;
  const args = [phase, ...(withMountpoints && short !== undefined ? paths : [])];
  return await runProcess({ ...what, args, limitMs, ...defined({ left }), onFlood: onLost }, signal);
}

/** Starts a resident writer. Never throws: gives the failure of its start instead. */
export function startResident(
  writer: Writer,
  context: PhaseContext,
  onLost: (reason: string) => void,
): ResidentWriter | ProcessResult {
  const what = prepared(writer, 'resident', context, false);
  return 'fault' in what ? what : new ResidentWriter({ ...what, args: ['resident'], onLost });
}

function prepared(
  writer: Writer,
  phase: WriterPhase | 'resident',
  context: PhaseContext,
  isRelease: boolean,
  { outcome, limitMs }: { readonly outcome?: SessionOutcome | undefined; readonly limitMs?: number } = {},
) {
  const { name, path } = writer;
  const { record, session, leaseMs, mountpoints } = context;
  const unsafe = whyUnsafeNow(writer, isRelease);
  if (unsafe !== undefined) return notStarted(unsafe);
  let scratch = record.scratchPath(name);
  try {
    scratch = record.scratch(name);
  } catch (error) {
    // A full tmpfs must keep nobody from letting go.
    if (!isRelease) return notStarted(`no scratch directory: ${describeError(error)}`);
  }
  record.noteStarting(writer, phase);
  return {
    label: `${name}.${phase}`,
    file: path,
    env: {
      PATH,
      HOME: '/root',
      FSFREEZE_SESSION: session,
      FSFREEZE_PHASE: phase,
      FSFREEZE_LEASE_MS: String(Math.round(leaseMs)),
      ...(limitMs === undefined ? {} : { FSFREEZE_LIMIT_MS: String(Math.floor(limitMs)) }),
      ...defined({ FSFREEZE_MOUNTPOINTS: mountpoints.short }),
      FSFREEZE_MOUNTPOINTS_FILE: record.mountpointsPath,
      FSFREEZE_OUTCOME: outcome ?? '',
      FSFREEZE_SCRATCH: scratch,
    },
    outputDir: record.outputDir,
    onStart: (pid: number): void => {
      record.noteProcess(path, pid, phase === 'resident');
    },
  };
}

function notStarted(why: string): ProcessResult & { readonly fault: string } {
  const now = monotonicMs();
  return { ...noEvents, startMs: now, endMs: now, fault: `not started: ${why}` };
}

/** What the end of a phase says. */
export type Verdict =
  { readonly kind: 'done' | 'unsupported' | 'not-applicable' } | { readonly kind: 'failed'; readonly reason: string };

export function readResult(
  { kind, phases }: Pick<Writer, 'kind' | 'phases'>,
  phase: WriterPhase,
  result: ProcessResult,
  limitMs: number,
): Verdict {
  const failed = (reason: string): Verdict => ({ kind: 'failed', reason });
  const { exitCode: code, text, answer, fault } = result;
  const because = text === undefined || text === '' ? '' : `: ${text}`;
  if (answer === 'ok') return { kind: 'done' };
  if (answer === 'error') return failed(text === undefined || text === '' ? 'it gave no reason' : text);
  if (result.unkillable) return failed(`still runs after SIGKILL${because}`);
  if (result.timedOut) return failed(`not done within ${Math.round(limitMs)} ms${because}`);
  if (result.aborted)
    return failed(`ended with the ${releasing.includes(phase) ? 'agent, or for a new session' : 'attempt'}`);
  const isDescribed = kind !== 'plain';
  // One that holds nothing may find in verify that its application has stopped since.
  const mayLeave = phase === 'prepare' || phase === 'freeze' || (phase === 'verify' && !phases.includes('freeze'));
  if (isDescribed && code === 3 && mayLeave) return { kind: 'not-applicable' };
  if (fault !== undefined) return failed(`${fault}${because}`);
  if (result.signal !== undefined) return failed(`ended by ${result.signal}${because}`);
  if (code === 0) return { kind: 'done' };
  if (isDescribed && code === 2) return { kind: 'unsupported' };
  const reserved = isDescribed && code !== undefined && code >= 4 && code <= 15 ? ' (reserved)' : '';
  return failed(`exit ${code ?? 'unknown'}${reserved}${because}`);
}

export function phaseReport(phase: WriterPhase, result: ProcessResult, zeroMs: number): PhaseReport {
  const { exitCode, signal: killer, text, fault } = result;
  const said = fault === undefined ? text : text === undefined ? fault : `${fault}: ${text}`;
  return {
    phase,
    startMs: result.startMs - zeroMs,
    endMs: result.endMs - zeroMs,
    ...defined({ exitCode, signal: killer }),
    timedOut: result.timedOut,
    ...(said === undefined || said === '' ? {} : { text: said }),
  };
}
