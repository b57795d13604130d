// Releases what a dead agent left: processes of writers that still run, and writers whose freeze was started and that
// nobody released. Run by the agent at its start. The freezer thaws the filesystems when the dead agent's connection
// closes; that is waited for, but not for long, since the applications wait too.
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Timer } from '../../deadline.js';
import { defined } from '../../defined.js';
import { describeError, ThawUnconfirmedError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import { thawLeft } from '../freezer/until-thawed.js';
import { endLeftProcesses } from '../writers/left-processes.js';
import type { CoordinatorOptions } from '../options.js';
import { stillRuns } from '../../linux/process-stat.js';
import { LeftRecord } from '../writers/left-record.js';
import type { StartedWriter } from '../writers/notes.js';
import { makerOf, sessionsDir, type SessionHead } from '../writers/record.js';
import { withDefaults, type Settings } from '../settings.js';
import type { Writer } from '../writers/folders.js';
import type { LeftWriters } from './unreleased.js';
import { mountpointList } from '../writers/phase.js';
import type { Release } from '../writers/run.js';
import { WriterSet } from '../writers/writer-set.js';

/** How long the freezer may take to thaw what the dead agent held. */
const THAW_LIMIT_MS = 5_000;
/** The writers are released after this all the same: a disk that does not answer must not keep applications paused. */
const RELEASE_AFTER_MS = 2_500;

export interface RecoveredSession {
  readonly session: string;
  readonly requester: string;
  /** The session had come to its end, but for writers that its process could not release. */
  readonly ended: boolean;
  /** In the order of their release. */
  readonly writers: readonly Release[];
  /** Why it could not be recovered, or not all of it. */
  readonly problem?: string;
}

interface Abandoned {
  readonly session: string;
  readonly record: LeftRecord;
  /** Undefined if it cannot be read: then it is nothing that we wrote. */
  readonly head: SessionHead | undefined;
}

/**
 * Releases the writers of every session whose process is gone, with the outcome `broken`, and removes its scratch;
 * a session with writers that cannot be released is kept, for the next time. The youngest session comes first. Sessions
 * of living processes are left alone. Throws a ThawUnconfirmedError if something may still be frozen, after all writers
 * were released and `tell` was told of them.
 */
export async function recoverSessions(
  options: CoordinatorOptions = {},
  tell: (recovered: readonly RecoveredSession[]) => void = () => undefined,
): Promise<readonly RecoveredSession[]> {
  const settings = withDefaults(options);
  const abandoned = abandonedSessions(settings.runtimeDir);
  const thaw = thawLeft(settings, new Set(abandoned.map(({ session }) => session)), THAW_LIMIT_MS);
  const timer = new Timer();
  await Promise.all([
    Promise.race([thaw, timer.after(RELEASE_AFTER_MS, undefined)]),
    ...abandoned.map(async ({ record, session, head }) => {
      await endLeftProcesses(record, session, head?.startTime ?? '0');
    }),
  ]);
  timer.clear();
  const recovered: RecoveredSession[] = [];
  for (const one of abandoned) recovered.push(await recoverSession(one, settings));
  tell(recovered);
  const unthawed = await thaw;
  if (unthawed !== undefined) throw new ThawUnconfirmedError('E_THAW', unthawed, { facts: { recovered } });
  return recovered;
}

/** Sessions of living processes that are not over: they hold writers, run `post`, or could not let go. */
export function sessionsUnderWay(runtimeDir: string): readonly SessionHead[] {
  return recordsIn(runtimeDir).flatMap(({ head }) => (head !== undefined && stillRuns(head) ? [head] : []));
}

/** The same of processes other than this one: rehearsals. */
export function sessionsBeside(runtimeDir: string): readonly SessionHead[] {
  return sessionsUnderWay(runtimeDir).filter(({ pid }) => pid !== process.pid);
}

/** The youngest session first, as the hold of a later one may rest on that of an earlier one. */
function abandonedSessions(runtimeDir: string): readonly Abandoned[] {
  const dir = sessionsDir(runtimeDir);
  for (const name of foldersIn(dir)) {
    // That session had not begun.
    const maker = makerOf(name);
    if (maker !== undefined && !stillRuns(maker)) rmSync(join(dir, name), { recursive: true, force: true });
  }
  return recordsIn(runtimeDir)
    .filter(({ head }) => head === undefined || !stillRuns(head))
    .sort((a, b) => (b.head?.beganMs ?? 0) - (a.head?.beganMs ?? 0));
}

function recordsIn(runtimeDir: string): readonly Abandoned[] {
  const dir = sessionsDir(runtimeDir);
  return foldersIn(dir)
    .filter((name) => makerOf(name) === undefined)
    .sort()
    .map((session) => {
      const record = LeftRecord.open(join(dir, session));
      return { session, record, head: headOf(record) };
    });
}

function foldersIn(dir: string): readonly string[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
}

function headOf(record: LeftRecord): SessionHead | undefined {
  try {
    return record.head();
  } catch {
    return undefined;
  }
}

// A head that cannot be read keeps no writer from being released.
async function recoverSession({ session, record, head }: Abandoned, settings: Settings): Promise<RecoveredSession> {
  const ended = record.ended();
  const started = record.unreleased();
  // Without a head it had not begun, and nobody was told that the guest is held.
  const told = {
    session,
    requester: head?.requester ?? '',
    ended: ended || (head === undefined && started.length === 0),
  };
  try {
    record.clearOutput();
    const writers = startedWriters({ session, record, head }, settings);
    await writers.release('broken');
    writers.close();
    if (record.unreleased().length === 0) record.remove();
    else record.noteEnded();
    return { ...told, writers: writers.releases };
  } catch (error) {
    return { ...told, writers: [], problem: describeError(error) };
  }
}

function startedWriters({ session, record, head }: Abandoned, settings: Settings): WriterSet {
  const { leaseMs = 0, mountpoints = [] } = head ?? {};
  return WriterSet.abandoned(
    record.unreleased().map((one) => asWriter(one, settings.writerOwner)),
    {
      session,
      leaseMs,
      leaseMaxMs: settings.leaseMaxMs,
      mountpoints: mountpointList(mountpoints),
      record,
      zeroMs: monotonicMs(),
      limitsMs: settings.writerLimitsMs,
      leftRuns: (path) => record.runningProcesses().some((one) => one.path === path),
    },
  );
}

/** Writers that recoverSessions() could not release. */
export function leftWriters(settings: Settings): readonly LeftWriters[] {
  return abandonedSessions(settings.runtimeDir).flatMap((one) => {
    const { session, record } = one;
    const writers = startedWriters(one, settings);
    return writers.holds ? [{ session, outcome: 'broken', writers, record, settled: Promise.resolve() }] : [];
  });
}

/**
 * Writers that a process beside this one (a rehearsal) left held when it died, once nothing runs any more that it had
 * started. `isKnown`: of a session that is looked after already. Takes about 3 s at most.
 */
export async function newlyLeftWriters(
  settings: Settings,
  isKnown: (session: string) => boolean,
): Promise<readonly LeftWriters[]> {
  const left = abandonedSessions(settings.runtimeDir).filter(
    ({ session, record }) => !isKnown(session) && record.unreleased().length > 0,
  );
  await Promise.all(
    left.map(async ({ record, session, head }) => {
      await endLeftProcesses(record, session, head?.startTime ?? '0');
    }),
  );
  return left.length === 0 ? [] : leftWriters(settings).filter(({ session }) => !isKnown(session));
}

function asWriter({ name, path, folder, style, kind, rank, limitMs, lingers }: StartedWriter, owner: number): Writer {
  const description = {
    phases: ['freeze' as const, 'thaw' as const],
    rank,
    timeout: { thaw: limitMs / 1000 },
    required: true,
    covers: [],
    ...defined({ lingers }),
  };
  const { phases } = description;
  return {
    name,
    path,
    folder: { path: folder, style },
    kind,
    rank,
    phases,
    required: true,
    description,
    checked: { owner },
  };
}
