// One freeze session as its requester and the coordinator see it (coordinator.ts holds at most one). Its steps:
// attempt.ts (1 to 4) and finish.ts (6 to 8); step 5, the cut, is the requester's. Whatever happens on the way,
// everything is thawed and released.
import type { FreezeReport, FreezeRequest } from '../../consistency.js';
import { describeError, UsageError, type QuiesceError } from '../../errors.js';
import { anySuspended } from '../../linux/device-mapper.js';
import { stillRuns, type ProcessId } from '../../linux/process-stat.js';
import type { Refusal } from '../freezer/exchange.js';
import type { FreezerHold } from '../freezer/hold.js';
import type { HoldEnd } from '../freezer/lease-watch.js';
import type { LocalSession } from '../options.js';
import type { Settings } from '../settings.js';
import { attempt } from './attempt.js';
import { CriticalSection } from './critical-section.js';
import type { Ending } from './ending.js';
import { aborted, notFrozen, sessionFailure } from './errors.js';
import { Finish } from './finish.js';
import type { EndedSession } from './kept-session.js';
import { Progress } from './progress.js';
import type { SessionState } from './state.js';
import type { LeftWriters } from './unreleased.js';
import { waitForPost, type BusyWriters, type Predecessor } from './waiting-for-post.js';

export class Session implements LocalSession, Predecessor {
  readonly id: string;
  readonly requester: string;
  readonly ended: Promise<FreezeReport>;
  readonly thawed: Promise<FreezeReport>;
  readonly #progress: Progress;
  readonly #finish: Finish;
  readonly #section = new CriticalSection();
  /** The session before, as long as a `post` of it runs. */
  #before: Predecessor | undefined;
  #waits = true;

  /** Throws a UsageError for a lease that cannot be given. `keep`: see Finish. */
  constructor(id: string, request: FreezeRequest, settings: Settings, keep: (ended: EndedSession) => void) {
    this.#progress = new Progress(id, request, settings);
    this.#finish = new Finish(this.#progress, keep);
    this.id = id;
    this.requester = request.requester;
    this.ended = this.#finish.ended;
    this.thawed = this.#finish.thawed;
  }

  get state(): SessionState {
    return this.#progress.state;
  }

  /** It had the lock of this machine, and did something. */
  get begun(): boolean {
    return this.#progress.acquired.record !== undefined;
  }

  /** It was held and its requester was told so; false of an attempt that did not get there. */
  get reachedFrozen(): boolean {
    return this.#progress.frozen !== undefined;
  }

  /** It has not begun: writers of sessions before are waited for. */
  get waits(): boolean {
    return this.#waits;
  }

  get frozenCount(): number {
    return this.#progress.acquired.filesystems?.frozenCount ?? 0;
  }

  get thawedCount(): number {
    return this.#progress.acquired.filesystems?.thawedCount ?? 0;
  }

  get remainingMs(): number {
    return this.#progress.acquired.hold?.remainingMs ?? 0;
  }

  /** Writers may be holding for it. */
  get holdsWriters(): boolean {
    return this.#progress.acquired.writers?.holds === true;
  }

  /** The session ended: the writers that did not let go; undefined if there are none. */
  get left(): LeftWriters | undefined {
    const { writers, record } = this.#progress.acquired;
    if (writers === undefined || record === undefined || writers.unreleased.length === 0) return undefined;
    return { session: this.id, outcome: this.#progress.outcome.kind, writers, record, settled: this.#finish.after };
  }

  /** The session ended, and why it is not known that everything is thawed; undefined if it is. */
  get unconfirmed(): string | undefined {
    return this.#progress.outcome.unconfirmed;
  }

  /** What is not confirmed is in the freezer's hands, and nothing has to wait for it (ending.ts). */
  get leftToFreezer(): boolean {
    return this.#progress.outcome.leftToFreezer;
  }

  get report(): FreezeReport {
    return this.#finish.report;
  }

  /** Settles, never rejects, when `post` or `abort` of the writers is done, those of sessions before included. */
  get settled(): Promise<void> {
    const before = this.#before?.settled;
    return before === undefined ? this.#finish.after : Promise.all([this.#finish.after, before]).then(() => undefined);
  }

  /** Writers whose `post` or `abort` runs, of this session or of one before. */
  get busy(): BusyWriters {
    const own = this.#progress.acquired.writers?.busy ?? [];
    return [...own.map((writer) => ({ writer, session: this.id })), ...(this.#before?.busy ?? [])];
  }

  /** This process is to end: the release and what comes after it have this long together. */
  hurry(limitMs: number): void {
    this.#progress.acquired.writers?.hurry(limitMs);
  }

  /**
   * Steps 1 to 4. May be called once. Whatever it throws, everything is thawed and released before. `before`: the
   * session before, of which `post` may still run (waiting-for-post.ts).
   */
  async freeze(signal?: AbortSignal, before?: Predecessor): Promise<void> {
    const progress = this.#progress;
    const onAbort = (): void => {
      progress.stop();
    };
    signal?.addEventListener('abort', onAbort);
    if (signal?.aborted === true) onAbort();
    progress.to('preparing');
    try {
      const leftOut = await this.#waitFor(before);
      await attempt(progress, {
        leftOut,
        onEnd: (end) => {
          this.#endedByItself(end);
        },
      });
    } catch (error) {
      const told = signal?.aborted === true ? aborted(signal.reason) : error;
      const report = await this.#finish.run({ outcome: 'failed', error: describeError(told), byItself: false });
      throw sessionFailure(told, report, this);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async #waitFor(before: Predecessor | undefined): Promise<ReadonlyMap<string, string>> {
    let leftOut: ReadonlyMap<string, string> = new Map();
    try {
      if (before !== undefined) leftOut = await waitForPost(this.#progress, before);
    } finally {
      this.#waits = false;
    }
    if (before === undefined || leftOut.size === 0) return leftOut;
    this.#before = before;
    void before.settled.then(() => {
      this.#before = undefined;
    });
    return leftOut;
  }

  #endedByItself({ outcome, error }: HoldEnd): void {
    if (this.state === 'frozen') void this.#endOutside({ outcome, error, byItself: true });
    // Else a step is under way, and unwinds first: its writers must not be released while they are still being held.
    else this.#progress.stop();
  }

  async renew(leaseMs: number): Promise<{ readonly remainingMs: number }> {
    if (!(leaseMs >= 1)) throw new UsageError('E_LEASE', `lease: expected at least 1 ms, found ${leaseMs}`);
    const refusal = await this.#hold().renew(leaseMs);
    if (refusal !== undefined) throw this.#tooLate(refusal);
    return { remainingMs: this.remainingMs };
  }

  async critical(on: boolean, boundMs = 30_000, worker?: ProcessId): Promise<void> {
    const hold = this.#hold();
    if (!hold.armed) return;
    if (on && this.#section.isClosed)
      throw notFrozen(this.id, 'its end waits for the end of a critical section', this.report);
    // What ends the session while the freezer is asked waits already, and goes on only when the freezer has answered.
    const { sysRoot } = this.#progress.settings;
    // A device that stays suspended when who suspended it is gone must not be thawed all the same.
    if (on) this.#section.begin(boundMs, worker && (() => !stillRuns(worker) && !anySuspended(sysRoot)));
    let refusal: Refusal | undefined;
    try {
      refusal = await hold.critical(on, boundMs);
    } catch (error) {
      this.#section.end();
      throw error;
    }
    if (!on || refusal !== undefined) this.#section.end();
    if (refusal !== undefined) throw this.#tooLate(refusal);
  }

  async closeSections(): Promise<void> {
    await this.#section.close();
  }

  #hold(): FreezerHold {
    const { state, frozen } = this.#progress;
    if (state !== 'frozen' || frozen === undefined) throw this.#tooLate();
    return frozen.hold;
  }

  #tooLate(refusal?: Refusal): QuiesceError {
    const why = refusal?.text ?? this.#progress.outcome.error ?? `state ${this.state}`;
    return notFrozen(this.id, why, this.report);
  }

  async thaw(): Promise<FreezeReport> {
    await this.#finish.run({ outcome: 'ok', byItself: false });
    return this.#confirmed();
  }

  async breakOff(error: string, byItself = false): Promise<FreezeReport> {
    await this.#endOutside({ outcome: 'broken', error, byItself });
    return this.#confirmed();
  }

  /** Ends it, once no critical section is under way: at once if there is none. */
  async #endOutside(ending: Ending): Promise<void> {
    const section = this.#section.close();
    if (section !== undefined) await section;
    await this.#finish.run(ending);
  }

  #confirmed(): FreezeReport {
    if (this.unconfirmed !== undefined) throw sessionFailure(undefined, this.report, this);
    return this.report;
  }
}
