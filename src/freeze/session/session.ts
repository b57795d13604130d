// One freeze session from its plan to its report: drives steps 1-8 of the freeze path over the writers, the freezer
// and the filesystems, and sees to it that whatever happens on the way everything is thawed and released. The
// coordinator (coordinator.ts) holds at most one.
import { defined } from '../../defined.js';
import type { FreezeReport, FreezeRequest } from '../../consistency.js';
import { Timer } from '../../deadline.js';
import { describeError, QuiesceError, UsageError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import type { FilesystemSet } from './filesystem-set.js';
import type { FreezerConnection } from '../freezer/client.js';
import type { Refusal } from '../freezer/exchange.js';
import { FreezerHold } from '../freezer/hold.js';
import type { HoldEnd } from '../freezer/lease-watch.js';
import { longestLeaseMs } from './lease.js';
import type { LocalSession } from '../options.js';
import { StepClock } from '../judgement/report.js';
import { checkPlain, checkUnsafe, checkWriters, vetoes } from '../judgement/requirement.js';
import type { Settings } from '../settings.js';
import { SessionEnding, type Ending } from './ending.js';
import { aborted, notFrozen, sessionFailure } from './errors.js';
import { SessionFindings } from './findings.js';
import { SessionRecord } from '../writers/record.js';
import { stepTo, type SessionState } from './state.js';
import type { LeftWriters } from './unreleased.js';
import { untilThawed } from '../freezer/until-thawed.js';
import type { Writer } from '../writers/folders.js';
import { mountpointList } from '../writers/phase.js';
import { WriterSet } from '../writers/writer-set.js';

/** What step 1 finds; everything later works on it. */
interface Parts {
  readonly filesystems: FilesystemSet;
  readonly writers: WriterSet;
  readonly record: SessionRecord;
  readonly hold: FreezerHold;
}

export class Session implements LocalSession {
  readonly id: string;
  readonly requester: string;
  readonly ended: Promise<FreezeReport>;
  readonly thawed: Promise<FreezeReport>;
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
  readonly #leftOut = new Map<string, string>();
  readonly #fate: SessionEnding;
  readonly #findings: SessionFindings;
  #final: FreezeReport | undefined;
  #ending: Promise<FreezeReport> | undefined;
  #after: Promise<void> = Promise.resolve();
  /** The session before, as long as a `post` of it runs. */
  #before: Session | undefined;
  #resolveEnded: (report: FreezeReport) => void = () => undefined;
  #resolveThawed: (report: FreezeReport) => void = () => undefined;

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
    this.#fate = new SessionEnding(id, settings.log);
    const head = { id, request, leaseMs: this.#leaseMs, clock: this.#clock };
    this.#findings = new SessionFindings(settings, head, this.#fate);
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.thawed = new Promise((resolve) => {
      this.#resolveThawed = resolve;
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

  /** Writers may be holding for it. */
  get holdsWriters(): boolean {
    return this.#parts.writers?.holds === true;
  }

  /** It ended: the writers that did not; undefined if there are none. */
  get left(): LeftWriters | undefined {
    const { writers, record } = this.#parts;
    if (writers === undefined || record === undefined || writers.unreleased.length === 0) return undefined;
    return { session: this.id, outcome: this.#fate.outcome, writers, record, settled: this.#after };
  }

  /** It ended, and why it is not known that everything is thawed; undefined if it is. */
  get unconfirmed(): string | undefined {
    return this.#fate.unconfirmed;
  }

  /** And nothing has to wait for it (SessionEnding). */
  get leftToFreezer(): boolean {
    return this.#fate.leftToFreezer;
  }

  get report(): FreezeReport {
    return this.#final ?? this.#findings.report(false);
  }

  /** Settles, never rejects, when `post` or `abort` of the writers is done too, those of sessions before included. */
  get settled(): Promise<void> {
    const before = this.#before?.settled;
    return before === undefined ? this.#after : Promise.all([this.#after, before]).then(() => undefined);
  }

  /** Writers whose `post` or `abort` runs, of this session or of one before, by the session. */
  get busy(): readonly { readonly writer: Writer; readonly session: string }[] {
    const own = this.#parts.writers?.busy ?? [];
    return [...own.map((writer) => ({ writer, session: this.id })), ...(this.#before?.busy ?? [])];
  }

  /** This process is to end: the release and what comes after it have this long together. */
  hurry(limitMs: number): void {
    this.#parts.writers?.hurry(limitMs);
  }

  /**
   * Steps 1-4. Whatever it throws, everything is thawed and released before. `before`: the session before, whose `post`
   * may still run, of the same writers; it is waited for as long as this one may prepare. Then a writer whose failure
   * would end the attempt ends it, and any other is left out, as one that failed.
   */
  async freeze(signal?: AbortSignal, before?: Session): Promise<void> {
    const onAbort = (): void => {
      this.#stop.abort();
    };
    signal?.addEventListener('abort', onAbort);
    if (signal?.aborted === true) onAbort();
    this.#to('preparing');
    try {
      if (before !== undefined) await this.#waitFor(before);
      const parts = await this.#stepPlan();
      await this.#stepPrepare(parts);
      await this.#stepHold(parts);
      await this.#stepFreeze(parts);
    } catch (error) {
      const told = signal?.aborted === true ? aborted(signal.reason) : error;
      const report = await this.#end({ outcome: 'failed', error: describeError(told), byItself: false });
      throw sessionFailure(told, report, this);
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
    return await this.#endAndTell({ outcome: 'ok', byItself: false });
  }

  async breakOff(error: string, byItself = false): Promise<FreezeReport> {
    return await this.#endAndTell({ outcome: 'broken', error, byItself });
  }

  async #endAndTell(ending: Ending): Promise<FreezeReport> {
    const report = await this.#end(ending);
    if (this.unconfirmed !== undefined) throw sessionFailure(undefined, report, this);
    return report;
  }

  // ---- steps 1-4 ----

  async #waitFor(before: Session): Promise<void> {
    this.#checkStop();
    const timer = new Timer();
    try {
      const first = await this.#unlessStopped(
        Promise.race([before.settled, timer.after(this.#prepareBudgetMs, 'late' as const)]),
      );
      if (first !== 'late') return;
      this.#checkBusy(before);
    } finally {
      timer.clear();
    }
  }

  #checkBusy(before: Session): void {
    const busy = before.busy;
    const { require } = this.#request;
    // Without any, a resident is still ending.
    if (busy.length === 0 || busy.some(({ writer }) => vetoes(writer, require, this.#settings.hookFailure))) {
      const names = busy.length === 0 ? 'a writer' : busy.map(({ writer }) => writer.name).join(', ');
      const text = `post of ${names} still runs since session ${busy.at(-1)?.session ?? before.id}: freeze later, or shorten its timeout.post`;
      throw new QuiesceError('E_WRITER', text);
    }
    for (const { writer, session } of busy)
      this.#leftOut.set(writer.path, `left out: its post still runs since session ${session}`);
    this.#before = before;
    void before.settled.then(() => {
      this.#before = undefined;
    });
  }

  async #stepPlan(): Promise<Parts> {
    this.#clock.begin('plan');
    this.#checkStop();
    const { require } = this.#request;
    const { runtimeDir, writerLimitsMs, plainHookLimitMs, hookFailure } = this.#settings;
    const { filesystems, concerned } = await this.#findings.plan();
    this.#checkStop();
    this.#parts = { filesystems };
    const hold = await this.#takeFreezer(filesystems);
    this.#parts = { filesystems, hold };
    checkPlain(require, filesystems.freezeErrors);

    const { mountpoints } = filesystems;
    const head = { session: this.id, requester: this.requester, leaseMs: this.#leaseMs, mountpoints };
    const record = SessionRecord.create(runtimeDir, head);
    this.#parts = { filesystems, hold, record };
    const writers = new WriterSet(concerned, {
      ...head,
      mountpoints: mountpointList(mountpoints),
      record,
      zeroMs: this.#clock.zeroMs,
      limitsMs: writerLimitsMs,
      ...defined({ plainHookLimitMs }),
      leftOut: this.#leftOut,
      vetoes: (writer) => vetoes(writer, require, hookFailure),
    });
    this.#findings.writers = writers;
    const parts = { filesystems, hold, record, writers };
    this.#parts = parts;
    checkUnsafe(require, hookFailure, this.#findings.unsafeWriters);
    return parts;
  }

  async #takeFreezer(filesystems: FilesystemSet): Promise<FreezerHold> {
    const { holdBudgetMs, freezeLimitMs, expediteRcu } = this.#settings;
    const request = {
      session: this.id,
      owner: this.requester,
      leaseMaxMs: this.#leaseMaxMs,
      budgetMs: this.#prepareBudgetMs + holdBudgetMs,
      freezeLimitMs,
      expedite: expediteRcu,
    };
    const open = async (freezer: FreezerConnection): Promise<void> => {
      await filesystems.open(freezer);
    };
    return await FreezerHold.take(this.#settings, request, open, (end) => {
      this.#endedByItself(end);
    });
  }

  async #stepPrepare({ writers, filesystems, hold }: Parts): Promise<void> {
    this.#clock.begin('prepare');
    this.#checkStop();
    const endMs = monotonicMs() + this.#prepareBudgetMs;
    const remaining = (): number => endMs - monotonicMs();
    await writers.prepare(remaining(), this.#stop.signal);
    this.#checkStop();
    checkWriters(this.#request.require, writers.vetoes);
    await this.#unlessStopped(filesystems.sync(hold.connection, remaining, this.#stop.signal));
    await this.#findings.synced();
  }

  async #stepHold({ writers }: Parts): Promise<void> {
    this.#to('holding');
    this.#clock.begin('hold');
    this.#checkStop();
    const { require } = this.#request;
    const { signal } = this.#stop;
    const endMs = monotonicMs() + this.#settings.holdBudgetMs;
    const remaining = (): number => Math.max(1, endMs - monotonicMs());
    await writers.freeze(remaining, signal);
    this.#checkStop();
    checkWriters(require, writers.vetoes);
    await writers.verify(remaining(), signal);
    this.#checkStop();
    checkWriters(require, writers.vetoes);
    await this.#findings.lookAgain();
    this.#checkStop();
    const without = [
      ...writers.failures,
      ...this.#findings.unsafeWriters.map(({ what, reason }) => `${what}: ${reason}`),
    ];
    if (without.length > 0)
      this.#settings.log.warn({ session: this.id, without }, `goes on without ${without.join('; ')}`);
    // Nothing is frozen in vain: what the freeze can reach at best is known by now.
    this.#findings.checkLevel({ assumeFrozen: true });
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
    // If all is as it was assumed before, nothing is judged again while everything stands still.
    if (!filesystems.allFrozen) this.#findings.checkLevel();
    this.#to('frozen');
    this.#reachedFrozen = true;
    this.#clock.begin('frozen');
  }

  /** Who asks for a plain freeze does not wait as long as `bridge-freeze` is waited for. */
  get #prepareBudgetMs(): number {
    const { prepareBudgetMs, plainPrepareMs } = this.#settings;
    return this.#request.require === 'plain' ? Math.min(plainPrepareMs, prepareBudgetMs) : prepareBudgetMs;
  }

  // ---- what ends it ----

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

  #frozenHold(): FreezerHold {
    const { hold } = this.#parts;
    if (this.#state !== 'frozen' || hold === undefined) throw this.#tooLate();
    return hold;
  }

  #tooLate(refusal?: Refusal): QuiesceError {
    const why = refusal?.text ?? this.#fate.error ?? `state ${this.#state}`;
    return notFrozen(this.id, why, this.report);
  }

  // ---- steps 6-8 ----

  async #end(ending: Ending): Promise<FreezeReport> {
    this.#ending ??= this.#finish(ending);
    return await this.#ending;
  }

  // Never throws: what goes wrong in it becomes part of the report, and `unconfirmed`.
  async #finish(ending: Ending): Promise<FreezeReport> {
    const { hold, filesystems, writers, record } = this.#parts;
    this.#to('thawing');
    this.#stop.abort();
    this.#fate.begin(ending);
    const armed = hold?.armed === true && filesystems !== undefined;
    if (armed) {
      this.#clock.begin('thaw');
      await this.#fate.thaw(hold, filesystems);
    }
    const isThawed = filesystems === undefined || this.#fate.thawed(filesystems);
    const keeps = isThawed && writers?.concerned === true;
    if (keeps) hold?.keepForRelease(this.#settings.holdBudgetMs + writers.releaseLimitMs);
    this.#findings.thawed();
    this.#clock.begin('release');
    await this.#releaseWriters();
    this.#clock.end();
    if (armed) await this.#fate.confirm(hold, filesystems);
    if (armed && !keeps) hold.close();
    else await hold?.release();
    await this.#findings.released();
    this.#to('idle');
    const final = this.#findings.report(true);
    this.#final = final;
    this.#after = this.#runAfter(final, record);
    // What hangs in the kernel is the freezer's, and no command waits for it.
    if (this.unconfirmed === undefined || this.#fate.leftToFreezer) this.#released(final, ending);
    if (this.unconfirmed === undefined) this.#resolveThawed(final);
    if (this.unconfirmed === undefined && filesystems?.hangs !== true) this.#writable();
    else void this.#settleLate(ending);
    this.#resolveEnded(final);
    return final;
  }

  // Until then a write to what is still frozen, or hangs in its FIFREEZE, would never return.
  async #settleLate(ending: Ending): Promise<void> {
    await untilThawed(this.#settings, this.id);
    if (this.unconfirmed !== undefined) {
      this.#fate.confirmedLate();
      this.#final = { ...this.report, state: 'thawed' };
      if (!this.#fate.leftToFreezer) this.#released(this.#final, ending);
      this.#resolveThawed(this.#final);
    }
    this.#writable();
  }

  #writable(): void {
    if (this.#holdTold) this.#settings.onWritable(this.id);
  }

  #released(final: FreezeReport, { byItself }: Ending): void {
    if (this.#holdTold) this.#settings.onReleased(final, byItself);
  }

  async #releaseWriters(): Promise<void> {
    const { writers } = this.#parts;
    if (writers === undefined) return;
    // Of what ended otherwise nothing can be proved any more, and the applications wait.
    if (this.#fate.outcome === 'ok') await writers.verify(this.#settings.holdBudgetMs);
    await writers.release(this.#fate.outcome);
    const { unreleased } = writers;
    if (unreleased.length > 0)
      this.#settings.log.error(
        { session: this.id, unreleased },
        `not released, tried again and again: ${unreleased.join('; ')}`,
      );
  }

  async #runAfter(final: FreezeReport, record: SessionRecord | undefined): Promise<void> {
    const { writers } = this.#parts;
    try {
      await writers?.after(this.#reachedFrozen ? 'post' : 'abort', this.#fate.outcome);
      if (writers !== undefined) this.#final = { ...(this.#final ?? final), writers: writers.reports(true) };
      if (writers === undefined || writers.unreleased.length === 0) record?.remove();
      else record?.noteEnded();
    } catch (error) {
      this.#settings.log.warn({ session: this.id }, `after the release: ${describeError(error)}`);
    }
  }

  #to(next: SessionState): void {
    this.#state = stepTo(next, this.#state);
  }
}
