// How far one session has come: its state, what it has acquired so far, and whether it is to stop. Steps 1 to 4 move it
// on (attempt.ts), and steps 6 to 8 end it, wherever it is (finish.ts). Who asked for the session sees it as
// session.ts.
import type { FreezeRequest } from '../../consistency.js';
import { unlessAborted } from '../../deadline.js';
import { QuiesceError, UsageError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import type { FreezerHold } from '../freezer/hold.js';
import { StepClock } from '../judgement/report.js';
import type { Settings } from '../settings.js';
import type { SessionRecord } from '../writers/record.js';
import type { WriterSet } from '../writers/writer-set.js';
import { Outcome } from './ending.js';
import { aborted } from './errors.js';
import type { FilesystemSet } from './filesystem-set.js';
import { SessionFindings } from './findings.js';
import { longestLeaseMs } from './lease.js';
import { stepTo, type SessionState } from './state.js';

/** Each part is put here in the line after it was acquired: the ending thaws and releases whatever stands here. */
interface Acquired {
  filesystems?: FilesystemSet;
  hold?: FreezerHold;
  record?: SessionRecord;
  writers?: WriterSet;
}

/** The value of a session that is held. Its requester cuts now. */
export interface Frozen {
  readonly hold: FreezerHold;
}

export class Progress {
  readonly id: string;
  readonly request: FreezeRequest;
  readonly settings: Settings;
  /** As given, which may be less than was asked for. */
  readonly leaseMs: number;
  readonly leaseMaxMs: number;
  readonly clock = new StepClock(monotonicMs);
  readonly outcome: Outcome;
  readonly findings: SessionFindings;
  readonly acquired: Acquired = {};
  /** onHold was called: onReleased and onWritable are owed. */
  holdTold = false;
  #state: SessionState = 'idle';
  #frozen: Frozen | undefined;
  readonly #stop = new AbortController();

  /** Throws a UsageError for a lease that cannot be given. */
  constructor(id: string, request: FreezeRequest, settings: Settings) {
    const { leaseMaxMs } = settings;
    if (!(request.leaseMs >= 1) || request.leaseMs > leaseMaxMs)
      throw new UsageError(
        'E_LEASE',
        `lease: expected 1 to ${leaseMaxMs} ms (lease-max of this guest), found ${request.leaseMs}`,
      );
    this.id = id;
    this.request = request;
    this.settings = settings;
    this.leaseMaxMs = longestLeaseMs(leaseMaxMs);
    this.leaseMs = Math.min(request.leaseMs, this.leaseMaxMs);
    this.outcome = new Outcome(id, settings.log);
    const head = { id, request, leaseMs: this.leaseMs, clock: this.clock };
    this.findings = new SessionFindings(settings, head, this.outcome);
  }

  get state(): SessionState {
    return this.#state;
  }

  /** Throws a StateError if there is no such step: a bug. */
  to(next: SessionState): void {
    this.#state = stepTo(next, this.#state);
  }

  /** Stays when the session has ended; undefined for an attempt that did not get there. */
  get frozen(): Frozen | undefined {
    return this.#frozen;
  }

  /** The step to state `frozen`, with its value. */
  reachFrozen(frozen: Frozen): void {
    this.to('frozen');
    this.#frozen = frozen;
  }

  /** A plain freeze has callers that do not wait as long as those of `bridge-freeze`. */
  get prepareBudgetMs(): number {
    const { prepareBudgetMs, plainPrepareMs } = this.settings;
    return this.request.require === 'plain' ? Math.min(plainPrepareMs, prepareBudgetMs) : prepareBudgetMs;
  }

  /** Aborted when the steps are to stop: the requester gave up, the freezer died, or the session is ending. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  stop(): void {
    this.#stop.abort();
  }

  /** Throws a QuiesceError if the steps are to stop. */
  checkStop(): void {
    if (this.signal.aborted) throw this.#stopReason();
  }

  /** Waits for `work`, but no longer than the steps may go on. Throws as checkStop() does. */
  async unlessStopped<T>(work: Promise<T>): Promise<T> {
    return await unlessAborted(work, this.signal, () => this.#stopReason());
  }

  #stopReason(): QuiesceError {
    const failure = this.acquired.hold?.failure;
    return failure === undefined ? aborted() : new QuiesceError('E_FREEZER', failure);
  }
}
