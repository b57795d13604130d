// Rehearses a session for one writer: holds its application and lets it go, and freezes nothing. It takes the lock of
// this machine, makes notes and runs the phases as a session does, so that what goes well here goes well there, and so
// that a successor releases the writer should this process die. A session over filesystems: attempt.ts, finish.ts.
import { randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConsistencyLevel, WriterReport } from '../../consistency.js';
import { defined } from '../../defined.js';
import { QuiesceError, StateError, UnreachableError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import { FreezerHold } from '../freezer/hold.js';
import { concernedWriters, makePlan } from '../judgement/plan.js';
import { vetoes } from '../judgement/requirement.js';
import { judge } from '../judgement/verdict.js';
import type { CoordinatorOptions } from '../options.js';
import { withDefaults, type Settings } from '../settings.js';
import { phaseLimitsMs } from '../writers/description.js';
import { findWriters, type Writer } from '../writers/folders.js';
import type { SessionOutcome } from '../writers/peer.js';
import { mountpointList } from '../writers/phase.js';
import { SessionRecord } from '../writers/record.js';
import { WriterSet } from '../writers/writer-set.js';
import { FilesystemSet } from './filesystem-set.js';
import { completingSessions } from './kept-sessions.js';
import { leftWriters, sessionsUnderWay } from './recovery.js';

/** What writers are told; nothing is frozen that would have to be thawed. */
const LEASE_MS = 10_000;
/** For the release and what comes after it, once the rehearsal is told to end. */
const HURRY_MS = 20_000;
/** A release is tried twice, and each try may have to be ended by force. */
const RELEASE_TRIES = 2;
const END_LIMIT_MS = 3_000;

export type RehearsalStep = 'prepare' | 'freeze' | 'verify' | 'hold' | 'verify again' | 'thaw' | 'post' | 'abort';

export interface RehearsalRequest {
  /** Its name, or its path. */
  readonly name: string;
  /** As others are told who ask for the guest meanwhile. */
  readonly requester: string;
  /** How long to hold between the two verifications, in milliseconds. */
  readonly holdMs: number;
  /** Lets go, when it is aborted. */
  readonly signal: AbortSignal;
  /** Called as each step begins. */
  readonly onStep: (step: RehearsalStep) => void;
}

export interface Rehearsal {
  readonly report: WriterReport;
  /** `failed`: a phase failed, or it was told to end; `broken`: the freezer, and with it the lock, was lost. */
  readonly outcome: Extract<SessionOutcome, 'ok' | 'failed' | 'broken'>;
  /** From the first start of `freeze` to the end of the last `thaw`, in milliseconds; 0 if it was not reached. */
  readonly pauseMs: number;
  /** What a session with this writer alone can reach at best, and why. */
  readonly level: ConsistencyLevel;
  readonly evidence: readonly string[];
  /** Kinds of freezes that its failure ends; empty if it did not fail. */
  readonly refuses: readonly ('bridge-freeze' | 'guest-fsfreeze-freeze')[];
  /** What it printed, by phase and stream, without what is empty. */
  readonly output: readonly { readonly what: string; readonly text: string }[];
  /** Why it is not known to have let go. */
  readonly unreleased?: string;
  /** False: there is no freezer here, so no session was kept away meanwhile. */
  readonly locked: boolean;
}

/**
 * Runs prepare, freeze, verify, verify, thaw and post of one writer. Throws an UnreachableError if there is no such
 * writer or the freezer does not answer, a QuiesceError (`E_WRITER`) if no session would run it, and a StateError if a
 * session holds the guest.
 */
export async function rehearse(options: CoordinatorOptions, request: RehearsalRequest): Promise<Rehearsal> {
  const settings = withDefaults(options);
  const writer = findWriter(settings, request.name);
  const mountpoints = await mountpointsFor(settings, writer);
  const session = `rehearsal-${randomUUID()}`;
  const broken = new AbortController();
  const hold = await takeLock(settings, writer, { ...request, session }, () => {
    broken.abort();
  });
  try {
    checkOthers(settings);
    const head = { session, requester: request.requester, leaseMs: LEASE_MS, mountpoints };
    const record = SessionRecord.create(settings.runtimeDir, head);
    const { writerLimitsMs, plainHookLimitMs, leaseMaxMs } = settings;
    const writers = new WriterSet([writer], {
      ...head,
      leaseMaxMs,
      mountpoints: mountpointList(mountpoints),
      record,
      zeroMs: monotonicMs(),
      limitsMs: writerLimitsMs,
      ...defined({ plainHookLimitMs }),
    });
    const done = await run(writers, settings, request, broken.signal);
    const output = outputIn(record, writer.name);
    const [unreleased] = writers.unreleased;
    // Kept where it holds: the agent tells it again to let go when it starts.
    if (unreleased === undefined) record.remove();
    else record.noteEnded();
    return {
      ...done,
      ...worth(writers, writer, settings),
      output,
      ...defined({ unreleased }),
      locked: hold !== undefined,
    };
  } finally {
    await hold?.release();
  }
}

async function run(
  writers: WriterSet,
  { prepareBudgetMs, holdBudgetMs }: Settings,
  { holdMs, signal: stop, onStep }: RehearsalRequest,
  broken: AbortSignal,
): Promise<Pick<Rehearsal, 'outcome' | 'pauseMs'>> {
  const signal = AbortSignal.any([stop, broken]);
  const hurry = (): void => {
    writers.hurry(HURRY_MS);
  };
  signal.addEventListener('abort', hurry);
  const goesOn = (): boolean => !signal.aborted && writers.failures.length === 0 && writers.concerned;
  const steps: readonly (readonly [RehearsalStep, () => Promise<unknown>])[] = [
    ['prepare', () => writers.prepare(prepareBudgetMs, signal)],
    ['freeze', () => writers.freeze(() => holdBudgetMs, signal)],
    ['verify', () => writers.verify(holdBudgetMs, signal)],
    ['hold', () => sleep(holdMs, undefined, { signal }).catch(() => undefined)],
    ['verify again', () => writers.verify(holdBudgetMs, signal)],
  ];
  const outcome = (): Rehearsal['outcome'] => {
    if (broken.aborted) return 'broken';
    return stop.aborted || writers.failures.length > 0 ? 'failed' : 'ok';
  };
  let heldFromMs: number | undefined;
  let last: Rehearsal['outcome'] = 'broken';
  let pauseMs = 0;
  try {
    for (const [step, act] of steps) {
      if (!goesOn()) break;
      onStep(step);
      if (step === 'freeze') heldFromMs = monotonicMs();
      await act();
    }
  } finally {
    last = outcome();
    onStep('thaw');
    await writers.release(last);
    if (heldFromMs !== undefined) pauseMs = monotonicMs() - heldFromMs;
    const after = last === 'ok' ? 'post' : 'abort';
    onStep(after);
    await writers.after(after, last);
    signal.removeEventListener('abort', hurry);
  }
  return { outcome: last, pauseMs };
}

// Throws an UnreachableError or a QuiesceError.
function findWriter({ writerFolders, writerOwner }: Settings, name: string): Writer {
  const found = findWriters(writerFolders, { owner: writerOwner });
  const named = found.filter((writer) => writer.path === name || writer.name === name);
  const writer = named.find(({ problem }) => problem === undefined) ?? named[0];
  if (writer === undefined) {
    const names = found.map((each) => each.name).join(', ');
    throw new UnreachableError(
      'E_NO_WRITER',
      `no writer ${name} here, ${names === '' ? 'nor any other' : `but ${names}`}`,
    );
  }
  if (writer.problem === undefined) return writer;
  throw new QuiesceError('E_WRITER', `${writer.path} is not run: ${writer.problem}`);
}

// No writer may be in two sessions at a time: `post` and `complete` run after the lock is given up, and what could not be
// let go is told to again and again. What a dead process left held is its successor's: a release here would go unseen there.
function checkOthers(settings: Settings): void {
  const [other] = sessionsUnderWay(settings.runtimeDir);
  const [completing] = completingSessions(settings.runtimeDir);
  const [left] = leftWriters(settings);
  if (other !== undefined) {
    const { session, requester } = other;
    throw new StateError('a rehearsal', `session ${session} of ${requester}, which is not over`, ['idle']);
  }
  if (completing !== undefined)
    throw new StateError('a rehearsal', `complete of session ${completing}, which is not over`, ['idle']);
  if (left === undefined) return;
  const state = `writers left held by session ${left.session} (the agent releases them when it is started anew, or after the next freeze)`;
  throw new StateError('a rehearsal', state, ['idle']);
}

/** As a session over all disks tells them. Throws a QuiesceError if no session would run the writer. */
async function mountpointsFor(settings: Settings, writer: Writer): Promise<string[]> {
  const view = await settings.view();
  const plan = makePlan(view.table, view.lookup, {}, settings.rules);
  if (concernedWriters([writer], view.table, plan).concerned.length === 0) {
    const covers = writer.description?.covers.join(', ') ?? '';
    const why = `what it covers (${covers}) lies on no filesystem that is held`;
    throw new QuiesceError('E_WRITER', `${writer.path} is not run: ${why}`);
  }
  return new FilesystemSet(plan, settings.sysRoot, 0).mountpoints;
}

/** Undefined where there is no freezer. Throws as FreezerHold.take(). */
async function takeLock(
  settings: Settings,
  writer: Writer,
  { session, requester, holdMs }: Pick<RehearsalRequest, 'requester' | 'holdMs'> & { readonly session: string },
  onLost: () => void,
): Promise<FreezerHold | undefined> {
  const { freezerPath, prepareBudgetMs, holdBudgetMs, leaseMaxMs, freezeLimitMs, plainHookLimitMs } = settings;
  const hasFreezer = freezerPath !== undefined && existsSync(freezerPath);
  const limitMs = (phase: 'thaw' | 'post'): number =>
    writer.description?.timeout[phase] === undefined
      ? Math.max(plainHookLimitMs ?? 0, settings.writerLimitsMs[phase] ?? phaseLimitsMs[phase])
      : writer.description.timeout[phase] * 1000;
  const releaseMs = RELEASE_TRIES * (limitMs('thaw') + END_LIMIT_MS);
  // The freezer takes a process that plans for longer than that for stopped, and ends it.
  const budgetMs = prepareBudgetMs + holdBudgetMs + holdMs + releaseMs + limitMs('post');
  const lock = { session, owner: requester, leaseMaxMs, budgetMs, freezeLimitMs, expedite: false };
  try {
    const places = { ...settings, freezerPath: hasFreezer ? freezerPath : undefined };
    return await FreezerHold.take(places, lock, () => Promise.resolve(), onLost);
  } catch (error) {
    if (error instanceof UnreachableError && !hasFreezer) return undefined;
    throw error;
  }
}

/** What a session would make of it. */
function worth(
  writers: WriterSet,
  writer: Writer,
  { trustPlainHooks, hookFailure }: Settings,
): Pick<Rehearsal, 'report' | 'level' | 'evidence' | 'refuses'> {
  const reports = writers.reports(true);
  const accompanying = writers.accompanying(true);
  const [report] = [...reports, ...accompanying];
  if (report === undefined) throw new StateError('a rehearsal', 'without a writer', ['with one']);
  const none = { filesystems: [], torn: [], changes: [], unsafeWriters: [], uncovered: [], disks: [] };
  const { level, evidence } = judge({ ...none, outcome: 'ok', writers: reports, accompanying, trustPlainHooks });
  const ends = (require: 'auto' | 'plain'): boolean =>
    report.verdict === 'failed' && vetoes(writer, require, hookFailure);
  return {
    report,
    level,
    evidence,
    refuses: [
      ...(ends('auto') ? (['bridge-freeze'] as const) : []),
      ...(ends('plain') ? (['guest-fsfreeze-freeze'] as const) : []),
    ],
  };
}

function outputIn({ outputDir }: SessionRecord, name: string): Rehearsal['output'] {
  return readdirSync(outputDir)
    .filter((file) => file.startsWith(`${name}.`))
    .map((file) => ({ what: file.slice(name.length + 1), text: readFileSync(join(outputDir, file), 'utf8') }))
    .filter(({ text }) => text.trim() !== '');
}
