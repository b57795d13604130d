// The in-process implementation of Coordinator (../consistency.ts): it holds at most one session at a time, and the
// freezer's lock lets this machine have no other. What a session does: session/session.ts. The whole path: README.md.
import { randomUUID } from 'node:crypto';
import type {
  CompleteOutcome,
  Completion,
  CoordinatorStatus,
  FreezeReport,
  FreezeRequest,
  KeptListing,
  UnreleasedWriter,
  WriterListing,
} from '../consistency.js';
import { withLimit } from '../deadline.js';
import { describeError, StateError, UsageError } from '../errors.js';
import { monotonicMs } from '../linux/clock.js';
import { FreezerInquiry } from './freezer/inquiry.js';
import type { HungFilesystem } from './freezer/lines.js';
import type { CoordinatorOptions, LocalCoordinator, LocalSession } from './options.js';
import { Completions } from './session/completions.js';
import { KeptSessions } from './session/kept-sessions.js';
import { LastRuns } from './session/last-runs.js';
import { leftWriters, newlyLeftWriters, sessionsBeside } from './session/recovery.js';
import { ThawPendingError } from './session/errors.js';
import { checkSessionId } from './writers/record.js';
import { Session } from './session/session.js';
import { withDefaults, type Settings } from './settings.js';
import { UnreleasedWriters } from './session/unreleased.js';
import { bothBefore } from './session/waiting-for-post.js';
import { findWriters, listing } from './writers/folders.js';

/** For writers, when this process is told to end: its unit's TimeoutStopSec is 30 s, and the thaw comes before. */
const STOP_LIMIT_MS = 20_000;
/** A status must come at once, also while the freezer is stopped. */
const STATUS_LIMIT_MS = 150;

/** Starts nothing and opens nothing yet. */
export function createCoordinator(options: CoordinatorOptions = {}): LocalCoordinator {
  return new InProcessCoordinator(withDefaults(options));
}

class InProcessCoordinator implements LocalCoordinator {
  readonly #settings: Settings;
  readonly #inquiry: FreezerInquiry;
  #current: Session | undefined;
  #last: Session | undefined;
  #stop = new AbortController();
  #closed = false;
  readonly #unreleased: UnreleasedWriters;
  readonly #kept: KeptSessions;
  readonly #completions: Completions;
  readonly #lastRuns = new LastRuns();
  #areKeptNoted = false;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#inquiry = new FreezerInquiry(settings.socketPath);
    this.#unreleased = new UnreleasedWriters(settings.log);
    this.#kept = new KeptSessions(settings);
    this.#completions = new Completions(settings, this.#kept);
  }

  get unreleased(): readonly UnreleasedWriter[] {
    return this.#unreleased.list;
  }

  get session(): LocalSession | undefined {
    const current = this.#current;
    return current?.reachedFrozen === true ? current : undefined;
  }

  get lastReport(): FreezeReport | undefined {
    return this.#last?.report;
  }

  async freeze(request: FreezeRequest, signal?: AbortSignal): Promise<LocalSession> {
    if (this.#closed) throw new StateError('a freeze', 'shutting down', ['idle']);
    if (this.#current !== undefined) {
      const { id: session, requester, state } = this.#current;
      throw new StateError('a freeze', `${state} for ${requester}`, ['idle'], {
        holder: { session, requester, state },
      });
    }
    if (request.disks?.length === 0)
      throw new UsageError('E_DISKS', 'disks: expected at least one (or none named, for all), found an empty list');
    const id = request.session ?? randomUUID();
    checkSessionId(id);
    this.#noteKept();
    const session = new Session(id, request, this.#settings, (ended) => {
      this.#kept.keep(ended);
      this.#lastRuns.note(ended.report);
    });
    this.#current = session;
    const isCompleting = this.#completions.running.length > 0;
    const before = isCompleting ? bothBefore(this.#last, this.#completions) : this.#last;
    void session.ended.then(() => {
      // A session that was refused before it began has no report worth keeping.
      if (session.begun) this.#last = session;
      if (session.begun) this.#lastRuns.note(session.report);
      if (this.#current === session) this.#current = undefined;
      if (session.left !== undefined) this.#unreleased.add(session.left);
      this.#unreleased.resume();
    });
    await this.#unreleased.pause();
    await this.#takeOverLeft();
    const signals = [this.#stop.signal, ...(signal === undefined ? [] : [signal])];
    await session.freeze(AbortSignal.any(signals), before);
    return session;
  }

  // A rehearsal that was killed left its writer held. It lets go after this session, and is listed until then.
  async #takeOverLeft(): Promise<void> {
    try {
      const left = await newlyLeftWriters(this.#settings, (session) => this.#unreleased.has(session));
      for (const each of left) this.#unreleased.add(each);
    } catch (error) {
      this.#settings.log.warn({}, `what a dead process left cannot be looked at: ${describeError(error)}`);
    }
  }

  async status(): Promise<CoordinatorStatus> {
    const current = this.#current;
    if (current !== undefined) {
      const { id: session, requester } = current;
      // It was asked for and has not begun, or it has ended and that is not told yet.
      const state = current.state === 'idle' ? 'preparing' : current.state;
      return { state, session, requester, ...(state === 'frozen' ? { remainingMs: current.remainingMs } : {}) };
    }
    if (this.#unconfirmed !== undefined) {
      const { id: session, requester } = this.#unconfirmed;
      return { state: 'thawing', session, requester };
    }
    return await this.#statusOfMachine();
  }

  /** The session that has ended, and of which it is not known that everything is thawed. */
  get #unconfirmed(): Session | undefined {
    return this.#last?.unconfirmed !== undefined && !this.#last.leftToFreezer ? this.#last : undefined;
  }

  // Somebody else may hold the guest: a backup inside it.
  async #statusOfMachine(): Promise<CoordinatorStatus> {
    try {
      const asked = this.#inquiry.ask(async (freezer) => await freezer.status(STATUS_LIMIT_MS));
      const { state, session, owner, deadlineMs } = await withLimit('freezer: status', STATUS_LIMIT_MS, asked, 'none');
      const held = freezerStates[state];
      if (held === undefined) return { state: 'idle' };
      const remainingMs = Math.max(0, deadlineMs - monotonicMs());
      return { state: held, session, requester: owner, ...(held === 'frozen' ? { remainingMs } : {}) };
    } catch {
      // No freezer, no session.
      return { state: 'idle' };
    }
  }

  async hungFilesystems(): Promise<readonly HungFilesystem[]> {
    const asked = this.#inquiry.ask(async (freezer) => await freezer.hung(STATUS_LIMIT_MS));
    return await withLimit('freezer: hung', STATUS_LIMIT_MS, asked, 'none').catch(() => []);
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- asynchronous for the remote coordinator's sake
  async writers(): Promise<readonly WriterListing[]> {
    const { writerFolders, writerOwner } = this.#settings;
    this.#noteKept();
    return findWriters(writerFolders, { owner: writerOwner }).map((writer) => this.#lastRuns.with(listing(writer)));
  }

  // Those of agents before this one come before any of this one's.
  #noteKept(): void {
    if (this.#areKeptNoted) return;
    this.#areKeptNoted = true;
    for (const report of this.#kept.reports) this.#lastRuns.note(report);
  }

  get kept(): readonly KeptListing[] {
    return this.#kept.list(this.#completions.running);
  }

  async complete(session: string, outcome: CompleteOutcome): Promise<Completion> {
    if (this.#closed) throw new StateError('bridge-complete', 'shutting down', ['idle']);
    checkSessionId(session);
    // A session that comes later waits for this.
    this.#checkIdle();
    return await this.#completions.complete(session, outcome, {
      settled: this.#last?.settled ?? Promise.resolve(),
      enter: async () => {
        await this.#unreleased.pause();
        const leave = (): void => {
          this.#unreleased.resume();
        };
        try {
          if (this.#current?.waits !== true) this.#checkIdle();
          return leave;
        } catch (error) {
          leave();
          throw error;
        }
      },
    });
  }

  #checkIdle(): void {
    const holder = this.#current ?? this.#unconfirmed;
    if (holder === undefined) {
      this.#checkBeside();
      return;
    }
    const { id, requester } = holder;
    const state = this.#current?.state ?? 'thawing';
    throw new StateError('bridge-complete', `${state} for ${requester}`, ['idle'], {
      holder: { session: id, requester, state },
    });
  }

  // No writer may be in two sessions at a time, and it may be held for a rehearsal.
  #checkBeside(): void {
    const [beside] = sessionsBeside(this.#settings.runtimeDir);
    if (beside === undefined) return;
    const { session, requester } = beside;
    throw new StateError('bridge-complete', `session ${session} of ${requester}, which is not over`, ['idle']);
  }

  async warmUp(): Promise<void> {
    for (const left of leftWriters(this.#settings)) this.#unreleased.add(left);
    await this.#kept.takeOver();
    await this.#settings.view();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#stop.abort();
    const current = this.#current;
    const last = current ?? this.#last;
    last?.hurry(STOP_LIMIT_MS);
    const completions = this.#completions.close();
    await this.#unreleased.close();
    if (current?.state === 'frozen')
      await current.breakOff('the agent was stopped while the guest was held', true).catch(() => undefined);
    else await current?.ended;
    await last?.settled;
    await completions;
    if (last?.unconfirmed !== undefined && !last.leftToFreezer)
      throw new ThawPendingError(last.unconfirmed, last.report, last.thawed);
  }
}

const freezerStates: Readonly<Record<string, CoordinatorStatus['state']>> = {
  planned: 'preparing',
  freezing: 'freezing',
  frozen: 'frozen',
  thawing: 'thawing',
};
