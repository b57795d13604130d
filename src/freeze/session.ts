// One freeze session from its plan to its report: drives steps 1-8 of the freeze path over the writers, the freezer
// and the filesystems, and sees to it that whatever happens on the way everything is thawed and released. The
// coordinator (coordinator.ts) holds at most one.
import type { FreezeReport, FreezeRequest } from '../consistency.js';
import { describeError, QuiesceError, StateError, ThawUnconfirmedError, UsageError } from '../errors.js';
import { BareDisks } from './bare-disks.js';
import { monotonicMs } from './clock.js';
import { FilesystemSet } from './filesystem-set.js';
import type { Refusal } from './freezer-client.js';
import { FreezerHold, type HoldEnd } from './freezer-hold.js';
import { longestLeaseMs } from './lease.js';
import type { LocalSession } from './options.js';
import { concernedWriters, makePlan } from './plan.js';
import { buildReport, StepClock } from './report.js';
import { checkLevel, checkPlain, checkWriters, levelNeeded, writersMustHold } from './requirement.js';
import type { Settings } from './settings.js';
import { SessionRecord } from './session-record.js';
import { stepTo, type SessionState } from './session-state.js';
import { judge, type Verdict } from './verdict.js';
import { findWriters } from './writer-folders.js';
import { WriterSet, type SessionOutcome } from './writers.js';

/** What step 1 finds; everything later works on it. */
interface Parts {
  readonly filesystems: FilesystemSet;
  readonly writers: WriterSet;
  readonly record: SessionRecord;
  readonly hold: FreezerHold;
}

interface Ending {
  readonly outcome: SessionOutcome;
  readonly error?: string;
  /** Neither thaw() nor the signal nor a failed step. */
  readonly byItself: boolean;
}

export class Session implements LocalSession {
  readonly id: string;
  readonly requester: string;
  readonly ended: Promise<FreezeReport>;
  readonly #request: FreezeRequest;
  readonly #settings: Settings;
  readonly #leaseMs: number;
  readonly #leaseMaxMs: number;
  readonly #clock = new StepClock(monotonicMs);
  readonly #stop = new AbortController();
  #state: SessionState = 'idle';
  #reachedFrozen = false;
  #holdTold = false;
  #parts: Partial<Parts> = {};
  #bare: BareDisks | undefined;
  #skipped: FreezeReport['skipped'] = [];
  #unsafeWriters: { readonly what: string; readonly reason: string }[] = [];
  #outcome: SessionOutcome = 'ok';
  #error: string | undefined;
  #unconfirmed: string | undefined;
  #final: FreezeReport | undefined;
  #ending: Promise<FreezeReport> | undefined;
  #after: Promise<void> = Promise.resolve();
  #resolveEnded: (report: FreezeReport) => void = () => undefined;

  /** Throws a UsageError for a lease that cannot be given. */
  constructor(id: string, request: FreezeRequest, settings: Settings) {
    const { leaseMaxMs } = settings;
    if (!(request.leaseMs >= 1) || request.leaseMs > leaseMaxMs)
      throw new UsageError(
        'E_LEASE',
        `lease: expected 1 to ${leaseMaxMs} ms (lease-max of this guest), found ${request.leaseMs}`,
      );
    this.id = id;
    this.requester = request.requester;
    this.#request = request;
    this.#settings = settings;
    this.#leaseMaxMs = longestLeaseMs(leaseMaxMs);
    this.#leaseMs = Math.min(request.leaseMs, this.#leaseMaxMs);
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get state(): SessionState {
    return this.#state;
  }

  /** It had the lock of this machine, and did something. */
  get begun(): boolean {
    return this.#parts.record !== undefined;
  }

  /** It was held and its requester was told so; false of an attempt that did not get there. */
  get reachedFrozen(): boolean {
    return this.#reachedFrozen;
  }

  get frozenCount(): number {
    return this.#parts.filesystems?.frozenCount ?? 0;
  }

  get thawedCount(): number {
    return this.#parts.filesystems?.thawedCount ?? 0;
  }

  get remainingMs(): number {
    return this.#parts.hold?.remainingMs ?? 0;
  }

  get report(): FreezeReport {
    return this.#final ?? this.#reportNow(false);
  }

  /** Settles, never rejects, when `post` or `abort` of the writers is done too. */
  get settled(): Promise<void> {
    return this.#after;
  }

  /** Steps 1-4. Whatever it throws, everything is thawed and released before. */
  async freeze(signal?: AbortSignal): Promise<void> {
    const onAbort = (): void => {
      this.#stop.abort();
    };
    signal?.addEventListener('abort', onAbort);
    if (signal?.aborted === true) onAbort();
    this.#to('preparing');
    try {
      const parts = await this.#stepPlan();
      await this.#stepPrepare(parts);
      await this.#stepHold(parts);
      await this.#stepFreeze(parts);
    } catch (error) {
      const told = signal?.aborted === true ? aborted(signal.reason) : error;
      const report = await this.#end({ outcome: 'failed', error: describeError(told), byItself: false });
      throw this.#failure(told, report);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async renew(leaseMs: number): Promise<{ readonly remainingMs: number }> {
    if (!(leaseMs >= 1)) throw new UsageError('E_LEASE', `lease: expected at least 1 ms, found ${leaseMs}`);
    const refusal = await this.#frozenHold().renew(leaseMs);
    if (refusal !== undefined) throw this.#tooLate(refusal);
    return { remainingMs: this.remainingMs };
  }

  async critical(on: boolean, boundMs = 30_000): Promise<void> {
    const refusal = await this.#frozenHold().critical(on, boundMs);
    if (refusal !== undefined) throw this.#tooLate(refusal);
  }

  async thaw(): Promise<FreezeReport> {
    const report = await this.#end({ outcome: 'ok', byItself: false });
    if (this.#unconfirmed !== undefined) throw this.#failure(undefined, report);
    return report;
  }

  // ---- steps 1-4 ----

  async #stepPlan(): Promise<Parts> {
    this.#clock.begin('plan');
    this.#checkStop();
    const settings = this.#settings;
    const { require } = this.#request;
    const { table, lookup } = settings.view();
    const plan = makePlan(table, lookup, this.#request, settings.ignoredMountpoints);
    const [unknown] = plan.unknownMountpoints;
    // qemu-ga passes over mount points it does not find.
    if (unknown !== undefined && require !== 'plain')
      throw new UsageError('E_MOUNTPOINT', `mount points: expected paths of the mount table, found ${unknown}`);

    const found = findWriters(settings.writerFolders, { owner: settings.writerOwner });
    const { concerned, skipped } = concernedWriters(found, table, plan);
    const unknownSkipped = plan.unknownMountpoints.map((what) => ({ what, reason: 'nothing is mounted there' }));
    this.#skipped = [...plan.skipped, ...unknownSkipped, ...skipped];
    this.#unsafeWriters = found.flatMap(({ path, problem, problemKind }) =>
      problem !== undefined && problemKind === 'unsafe' ? [{ what: path, reason: problem }] : [],
    );

    const filesystems = new FilesystemSet(plan, settings.sysRoot, this.#clock.zeroMs);
    this.#parts = { filesystems };
    const hold = await this.#takeFreezer();
    this.#parts = { filesystems, hold };
    await filesystems.open(hold.connection);
    checkPlain(require, filesystems.freezeErrors);

    const { mountpoints } = filesystems;
    const head = { session: this.id, requester: this.requester, leaseMs: this.#leaseMs, mountpoints };
    const record = SessionRecord.create(settings.runtimeDir, head);
    this.#parts = { filesystems, hold, record };
    const context = { ...head, record, zeroMs: this.#clock.zeroMs, limitsMs: settings.writerLimitsMs };
    const writers = new WriterSet(concerned, context);
    this.#bare = new BareDisks(plan.disks, settings.sysRoot);
    const parts = { filesystems, hold, record, writers };
    this.#parts = parts;
    return parts;
  }

  async #takeFreezer(): Promise<FreezerHold> {
    const { prepareBudgetMs, holdBudgetMs, expediteRcu } = this.#settings;
    const request = {
      session: this.id,
      owner: this.requester,
      leaseMaxMs: this.#leaseMaxMs,
      budgetMs: prepareBudgetMs + holdBudgetMs,
      expedite: expediteRcu,
    };
    return await FreezerHold.take(this.#settings, request, (end) => {
      this.#endedByItself(end);
    });
  }

  async #stepPrepare({ writers, filesystems, hold }: Parts): Promise<void> {
    this.#clock.begin('prepare');
    this.#checkStop();
    const endMs = monotonicMs() + this.#settings.prepareBudgetMs;
    const remaining = (): number => endMs - monotonicMs();
    await writers.prepare(remaining(), this.#stop.signal);
    this.#checkStop();
    checkWriters(this.#request.require, writers.requiredFailures);
    await this.#unlessStopped(filesystems.sync(hold.connection, remaining, this.#stop.signal));
    this.#bare?.start();
  }

  async #stepHold({ writers }: Parts): Promise<void> {
    this.#to('holding');
    this.#clock.begin('hold');
    this.#checkStop();
    const { require } = this.#request;
    const { signal } = this.#stop;
    const endMs = monotonicMs() + this.#settings.holdBudgetMs;
    const remaining = (): number => Math.max(1, endMs - monotonicMs());
    await writers.freeze(remaining, signal, writersMustHold(require));
    this.#checkStop();
    checkWriters(require, writers.requiredFailures);
    await writers.verify(remaining(), signal);
    this.#checkStop();
    checkWriters(require, writers.requiredFailures);
    // Nothing is frozen in vain: what the freeze can reach at best is known by now.
    this.#checkLevel({ assumeFrozen: true });
  }

  async #stepFreeze({ filesystems, hold }: Parts): Promise<void> {
    this.#to('freezing');
    this.#holdTold = true;
    this.#settings.onHold(this.id);
    this.#clock.begin('freeze');
    if (filesystems.openCount === 0) await hold.freezeNothing(this.#leaseMs);
    else filesystems.recordFreeze(await this.#unlessStopped(hold.freeze(this.#leaseMs)));
    this.#checkStop();
    checkPlain(this.#request.require, filesystems.freezeErrors);
    this.#checkLevel();
    this.#to('frozen');
    this.#reachedFrozen = true;
    this.#clock.begin('frozen');
  }

  // ---- what ends it ----

  #checkLevel(how: { readonly assumeFrozen?: boolean } = {}): void {
    const concerned = this.#parts.writers?.concerned === true || this.#unsafeWriters.length > 0;
    checkLevel(this.#judge(how), levelNeeded(this.#request.require, concerned));
  }

  #checkStop(): void {
    if (this.#stop.signal.aborted) throw this.#stopReason();
  }

  #stopReason(): QuiesceError {
    const failure = this.#parts.hold?.failure;
    return failure === undefined ? aborted() : new QuiesceError('E_FREEZER', failure);
  }

  async #unlessStopped<T>(work: Promise<T>): Promise<T> {
    const { signal } = this.#stop;
    let onAbort = (): void => undefined;
    const stopped = new Promise<never>((_resolve, reject) => {
      onAbort = () => {
        reject(this.#stopReason());
      };
      signal.addEventListener('abort', onAbort);
      if (signal.aborted) onAbort();
    });
    // The loser's failure has no other listener.
    work.catch(() => undefined);
    stopped.catch(() => undefined);
    try {
      return await Promise.race([work, stopped]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #endedByItself({ outcome, error }: HoldEnd): void {
    if (this.#state === 'frozen') void this.#end({ outcome, error, byItself: true });
    // Else a step is under way, and unwinds first: its writers must not be released while they are still being held.
    else this.#stop.abort();
  }

  #failure(error: unknown, report: FreezeReport): Error {
    if (this.#unconfirmed !== undefined)
      return new ThawUnconfirmedError('E_THAW', this.#unconfirmed, {
        facts: { report },
        ...(error === undefined ? {} : { cause: error }),
      });
    if (error instanceof StateError || error instanceof UsageError) return error;
    if (error instanceof QuiesceError)
      return new QuiesceError(error.code, error.message, { facts: { ...error.facts, report }, cause: error.cause });
    return new QuiesceError('E_QUIESCE', describeError(error), { facts: { report }, cause: error });
  }

  #frozenHold(): FreezerHold {
    const { hold } = this.#parts;
    if (this.#state !== 'frozen' || hold === undefined) throw this.#tooLate();
    return hold;
  }

  #tooLate(refusal?: Refusal): QuiesceError {
    const why = refusal?.text ?? this.#error ?? `state ${this.#state}`;
    return new QuiesceError('E_EXPIRED', `session ${this.id} is not frozen any more: ${why}`, {
      facts: { report: this.report },
    });
  }

  // ---- steps 6-8 ----

  async #end(ending: Ending): Promise<FreezeReport> {
    this.#ending ??= this.#finish(ending);
    return await this.#ending;
  }

  // Never throws: what goes wrong in it becomes part of the report, and `#unconfirmed`.
  async #finish(ending: Ending): Promise<FreezeReport> {
    const { hold, filesystems, record } = this.#parts;
    this.#to('thawing');
    this.#stop.abort();
    this.#outcome = ending.outcome;
    this.#error = ending.error;
    const armed = hold?.armed === true;
    if (armed) await this.#thawFilesystems(hold);
    filesystems?.finish();
    this.#bare?.finish();
    this.#clock.begin('release');
    await this.#releaseWriters();
    this.#clock.end();
    if (armed) await this.#confirmThaw(hold);
    else await hold?.release();
    hold?.close();
    this.#to('idle');
    const final = this.#reportNow(true);
    this.#final = final;
    this.#after = this.#runAfter(final, record);
    if (this.#holdTold) this.#settings.onReleased(final, ending.byItself);
    this.#resolveEnded(final);
    return final;
  }

  async #thawFilesystems(hold: FreezerHold): Promise<void> {
    this.#clock.begin('thaw');
    const { filesystems } = this.#parts;
    const { answers, end, byMarker, unconfirmed } = await hold.thaw();
    filesystems?.recordThaw(answers);
    if (byMarker) filesystems?.recordThawedByMarker();
    this.#unconfirmed = unconfirmed;
    if (end !== undefined) this.#worsen(end.outcome, end.error);
    const foreign = filesystems?.foreignThaws ?? [];
    if (foreign.length > 0)
      this.#worsen('broken', `somebody else thawed ${foreign.join(', ')} while the guest was held`);
  }

  // A disk that did not answer may do so by now.
  async #confirmThaw(hold: FreezerHold): Promise<void> {
    const { filesystems } = this.#parts;
    if (filesystems === undefined || this.#unconfirmed !== undefined || filesystems.unthawed.length === 0) return;
    filesystems.recordThaw((await hold.thaw()).answers);
    if (filesystems.unthawed.length === 0) return;
    this.#unconfirmed = `nobody confirmed the thaw of ${filesystems.unthawed.join(', ')}`;
    this.#worsen('broken', this.#unconfirmed);
  }

  async #releaseWriters(): Promise<void> {
    const { writers } = this.#parts;
    if (writers === undefined) return;
    // Of what ended otherwise nothing can be proved any more, and the applications wait.
    if (this.#outcome === 'ok') await writers.verify(this.#settings.holdBudgetMs);
    await writers.release(this.#outcome);
  }

  async #runAfter(final: FreezeReport, record: SessionRecord | undefined): Promise<void> {
    const { writers } = this.#parts;
    try {
      await writers?.after(this.#reachedFrozen ? 'post' : 'abort', this.#outcome);
      if (writers !== undefined) this.#final = { ...final, writers: writers.reports(true) };
      record?.remove();
    } catch (error) {
      this.#settings.log.warn({ session: this.id }, `after the release: ${describeError(error)}`);
    }
  }

  #worsen(outcome: SessionOutcome, error: string): void {
    if (this.#outcome === 'ok') this.#outcome = outcome;
    this.#error ??= error;
    this.#settings.log.error({ session: this.id }, error);
  }

  // ---- the report ----

  #judge({ assumeFrozen = false } = {}): Verdict {
    const { filesystems, writers } = this.#parts;
    return judge({
      outcome: this.#outcome,
      ...(this.#error === undefined ? {} : { error: this.#error }),
      filesystems: filesystems?.reports({ assumeFrozen }) ?? [],
      writers: writers?.reports(this.#state === 'idle') ?? [],
      unsafeWriters: this.#unsafeWriters,
      disks: this.#bare?.facts(),
      trustPlainHooks: this.#settings.trustPlainHooks,
    });
  }

  #reportNow(final: boolean): FreezeReport {
    const { filesystems, writers } = this.#parts;
    return buildReport({
      session: this.id,
      requester: this.requester,
      final,
      outcome: this.#outcome,
      verdict: this.#judge(),
      error: this.#error,
      filesystems: filesystems?.reports() ?? [],
      writers: writers?.reports(final) ?? [],
      skipped: this.#skipped,
      clock: this.#clock,
      leaseMs: this.#leaseMs,
      heldWriters: writers?.holding ?? false,
      frozenSpan: filesystems?.frozenSpan,
    });
  }

  #to(next: SessionState): void {
    this.#state = stepTo(next, this.#state);
  }
}

function aborted(cause?: unknown): QuiesceError {
  return new QuiesceError('E_ABORTED', 'the attempt was aborted', { cause });
}
