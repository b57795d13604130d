// What a dead agent left: writers whose freeze was started and that nobody released. Run by the agent at its start,
// once the freezer has thawed (it does so when the dead one's connection closed).
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describeError, ThawUnconfirmedError } from '../errors.js';
import { Deadline } from '../deadline.js';
import { monotonicMs } from './clock.js';
import { connectToSocket } from './freezer-client.js';
import { processStartTime, thawMarked } from './freezer-process.js';
import type { CoordinatorOptions } from './options.js';
import { SessionRecord, sessionsDir, type StartedWriter } from './session-record.js';
import { withDefaults, type Settings } from './settings.js';
import { whyUnsafe } from './writer-folders.js';
import { killGroup } from './writer-process.js';
import { runPhase } from './writers.js';

/** For the freezer to thaw what the dead one held; a disk that does not answer must not keep the others paused. */
const THAW_LIMIT_MS = 5_000;
const POLL_MS = 50;

interface RecoveredWriter {
  readonly name: string;
  readonly path: string;
  /** Its `thaw` exited 0. */
  readonly released: boolean;
  readonly reason?: string;
}

export interface RecoveredSession {
  readonly session: string;
  readonly requester: string;
  /** It had come to its end, but for writers that its process could not release. */
  readonly ended: boolean;
  /** In the order of their release. */
  readonly writers: readonly RecoveredWriter[];
  /** Why it could not be recovered, or not all of it. */
  readonly problem?: string;
}

/**
 * Releases the writers of every session whose process is gone, with the outcome `broken`, and removes its scratch;
 * a session with writers that cannot be released is kept, for the next time. Sessions of living processes are left
 * alone. Throws a ThawUnconfirmedError if something may still be frozen, after all writers were released and `tell`
 * was told of them.
 */
export async function recoverSessions(
  options: CoordinatorOptions = {},
  tell: (recovered: readonly RecoveredSession[]) => void = () => undefined,
): Promise<readonly RecoveredSession[]> {
  const settings = withDefaults(options);
  const abandoned = abandonedSessions(settings.runtimeDir);
  const unthawed = await waitUntilThawed(settings, new Set(abandoned.map(({ session }) => session)));
  const recovered: RecoveredSession[] = [];
  for (const { record, session } of abandoned) recovered.push(await recoverSession(record, session, settings));
  tell(recovered);
  if (unthawed !== undefined) throw new ThawUnconfirmedError('E_THAW', unthawed, { facts: { recovered } });
  return recovered;
}

function abandonedSessions(
  runtimeDir: string,
): readonly { readonly record: SessionRecord; readonly session: string }[] {
  const dir = sessionsDir(runtimeDir);
  if (!existsSync(dir)) return [];
  return readdirSync(dir)
    .sort()
    .map((session) => ({ session, record: SessionRecord.open(join(dir, session)) }))
    .filter(({ record }) => !ownerLives(record));
}

function ownerLives(record: SessionRecord): boolean {
  try {
    const { pid, startTime } = record.head();
    return processStartTime(pid) === startTime;
  } catch {
    // Its process died while it wrote the head: before any writer was started.
    return false;
  }
}

/** Undefined, or what may still be frozen. */
async function waitUntilThawed(settings: Settings, sessions: ReadonlySet<string>): Promise<string | undefined> {
  const deadline = new Deadline(THAW_LIMIT_MS);
  for (;;) {
    const holder = await sessionHeld(settings.socketPath);
    if (holder === undefined) return await thawByMarker(settings);
    // Idle, or held by somebody who lives.
    if (!sessions.has(holder)) return undefined;
    if (deadline.passed) return `the freezer has not thawed session ${holder} within ${THAW_LIMIT_MS} ms`;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** The session that the freezer holds, '' if none; undefined if no freezer answers. */
async function sessionHeld(socketPath: string): Promise<string | undefined> {
  try {
    const freezer = await connectToSocket(socketPath, { onExpired() {}, onThawed() {}, onLost() {} });
    try {
      const { state, session } = await freezer.status();
      return state === 'idle' ? '' : session;
    } finally {
      freezer.close();
    }
  } catch {
    return undefined;
  }
}

async function thawByMarker(settings: Settings): Promise<string | undefined> {
  try {
    await thawMarked(settings);
    return undefined;
  } catch (error) {
    return describeError(error);
  }
}

async function recoverSession(record: SessionRecord, session: string, settings: Settings): Promise<RecoveredSession> {
  const ended = record.ended();
  try {
    const head = record.head();
    const writers: RecoveredWriter[] = [];
    // A `freeze` that still runs would take its hold after the `thaw`. What it left in the background is its thaw's.
    for (const { pid } of record.runningProcesses()) killGroup(pid, 'SIGKILL');
    const context = {
      session,
      leaseMs: head.leaseMs,
      mountpoints: head.mountpoints,
      record,
      zeroMs: monotonicMs(),
    };
    for (const writer of inReleaseOrder(record.unreleased()))
      writers.push(await releaseWriter(writer, context, settings.writerOwner));
    if (record.unreleased().length === 0) record.remove();
    else record.noteEnded();
    return { session, requester: head.requester, ended, writers };
  } catch (error) {
    const nothingStarted = record.unreleased().length === 0;
    if (nothingStarted) record.remove();
    // Without a head it had not begun, and nobody was told that the guest is held.
    return {
      session,
      requester: '',
      ended: ended || nothingStarted,
      writers: [],
      ...(nothingStarted ? {} : { problem: describeError(error) }),
    };
  }
}

function inReleaseOrder(started: readonly StartedWriter[]): readonly StartedWriter[] {
  return [...started].reverse().sort((a, b) => b.rank - a.rank);
}

async function releaseWriter(
  writer: StartedWriter,
  context: Parameters<typeof runPhase>[3],
  owner: number,
): Promise<RecoveredWriter> {
  const { name, path, kind, style, limitMs } = writer;
  const unsafe = whyUnsafe(path, owner);
  if (unsafe !== undefined) return { name, path, released: false, reason: unsafe };
  const what = { name, path, kind, folder: { style } };
  const { result } = await runPhase(what, 'thaw', limitMs, context, { outcome: 'broken' });
  const released = result.exitCode === 0;
  if (released) context.record.noteReleased(path);
  return { name, path, released, ...(released ? {} : { reason: result.text ?? 'thaw failed' }) };
}
