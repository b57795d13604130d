// Starts a writer for a phase: with its environment, arguments and scratch folder, after the checks that come before
// root runs it again (fsfreeze-hook.d/README.md). What its end means: phase-result.ts. Who runs when: writer-set.ts.
import { defined } from '../../defined.js';
import type { outcomes, WriterPhase } from '../../consistency.js';
import { describeError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import { ResidentWriter } from './resident.js';
import { mountpointLines, type SessionRecord } from './record.js';
import type { Writer } from './folders.js';
import type { LeftOutput } from './output.js';
import { isRelease } from './phase-result.js';
import { noEvents, runProcess, type ProcessResult } from './process.js';
import { whyUnsafeNow } from './safety.js';

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** execve(2) takes 128 KiB for one word (MAX_ARG_STRLEN), and with small stacks about as much for all of them. */
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
  /** The same, one on a line; undefined if that is too long to be handed over when a program is started. */
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
  /** Called when what the phase left running goes wrong after it. */
  readonly onLost: (reason: string) => void;
}

/** Runs the phase in a process of its own. Never throws. */
export async function runPhase(
  writer: Writer,
  phase: WriterPhase,
  context: PhaseContext,
  { limitMs, signal, outcome, left, onLost }: PhaseOptions,
): Promise<ProcessResult> {
  const { paths, short } = context.mountpoints;
  const withMountpoints = writer.kind === 'plain' && writer.folder.style === 'dragonsdawn';
  if (withMountpoints && short === undefined && !isRelease(phase))
    return notStarted(
      `${paths.length} mount points do not fit on its command line: in /etc/fsfreeze-bridge/fsfreeze-hook.d ` +
        'it can read them from the file $FSFREEZE_MOUNTPOINTS_FILE',
    );
  const what = prepared(writer, phase, context, { outcome, limitMs });
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
  const what = prepared(writer, 'resident', context);
  return 'fault' in what ? what : new ResidentWriter({ ...what, args: ['resident'], onLost });
}

function prepared(
  writer: Writer,
  phase: WriterPhase | 'resident',
  context: PhaseContext,
  { outcome, limitMs }: { readonly outcome?: SessionOutcome | undefined; readonly limitMs?: number } = {},
) {
  const { name, path } = writer;
  const { record, session, leaseMs, mountpoints } = context;
  const letsGo = phase !== 'resident' && isRelease(phase);
  const unsafe = whyUnsafeNow(writer, letsGo);
  if (unsafe !== undefined) return notStarted(unsafe);
  let scratch = record.scratchPath(name);
  try {
    scratch = record.scratch(name);
  } catch (error) {
    // A full tmpfs must keep nobody from letting go.
    if (!letsGo) return notStarted(`no scratch directory: ${describeError(error)}`);
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
