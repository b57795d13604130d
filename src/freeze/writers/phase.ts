// Prepares a program of a writer for its start: environment and scratch folder, after the checks that come before root
// runs it again (fsfreeze-hook.d/README.md). Who starts it: program-peer.ts, resident-peer.ts.
import { defined } from '../../defined.js';
import type { WriterPhase } from '../../consistency.js';
import { describeError } from '../../errors.js';
import { mountpointLines, type SessionRecord } from './record.js';
import type { Writer } from './folders.js';
import type { SessionOutcome } from './peer.js';
import { isRelease } from './phase-result.js';
import type { ProcessRequest } from './process.js';
import { whyUnsafeNow } from './safety.js';

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** execve(2) takes 128 KiB for one word (MAX_ARG_STRLEN), and with small stacks about as much for all of them. */
const SHORT_LIST_BYTES = 64 * 1024;

export interface PhaseContext {
  readonly session: string;
  readonly leaseMs: number;
  /** No renewal goes beyond this, counted from the first FIFREEZE. */
  readonly leaseMaxMs: number;
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

/** Either what a program of a writer is started with, or why it is not started. */
export type ToStart =
  Pick<ProcessRequest, 'label' | 'file' | 'env' | 'outputDir' | 'onStart'> | { readonly fault: string };

/**
 * Looks at the writer once more, makes its scratch folder and notes that it is about to be started. `resident`: it
 * lives from prepare to thaw. Never throws.
 */
export function toStart(
  writer: Writer,
  phase: WriterPhase | 'resident',
  context: PhaseContext,
  { outcome, limitMs }: { readonly outcome?: SessionOutcome | undefined; readonly limitMs?: number } = {},
): ToStart {
  const { name, path } = writer;
  const { record, session, leaseMs, leaseMaxMs, mountpoints } = context;
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
      FSFREEZE_LEASE_MAX_MS: String(Math.round(leaseMaxMs)),
      ...(limitMs === undefined ? {} : { FSFREEZE_LIMIT_MS: String(Math.floor(limitMs)) }),
      ...defined({ FSFREEZE_MOUNTPOINTS: mountpoints.short }),
      FSFREEZE_MOUNTPOINTS_FILE: record.mountpointsPath,
      FSFREEZE_OUTCOME: outcome ?? '',
      FSFREEZE_SCRATCH: scratch,
    },
    outputDir: record.outputDir,
    onStart: (pid, startTime): void => {
      record.noteProcess({ path, pid, startTime, ...(phase === 'resident' ? { resident: true } : {}) });
    },
  };
}

function notStarted(why: string): { readonly fault: string } {
  return { fault: `not started: ${why}` };
}
