// A session's hold on the freezer: the lock that it takes, the freeze, the thaw, and the way back when the freezer has
// died or does not answer. Our own watch over the lease: lease-watch.ts. What the kernel answered for each filesystem:
// session/filesystem-set.ts.
import { Timer } from '../../deadline.js';
import { DeadlineError, describeError, QuiesceError, StateError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import type { FreezerConnection, FreezerIdentity } from './client.js';
import type { Refusal } from './exchange.js';
import { LeaseWatch, type HoldEnd } from './lease-watch.js';
import { freezerText, type FilesystemAnswer } from './lines.js';
import { connectFreezer, killFreezer, thawMarked, type FreezerPlaces } from './process.js';

/** Beyond our own budgets, before the freezer takes a planning session for dead and kills its process. */
const PLAN_SLACK_MS = 30_000;
const LONGEST_PLAN_MS = 3_600_000;
/**
 * A freezer is taken for stopped if it does not confirm a thaw in this time, and says nothing when asked for as much
 * again.
 */
const STILL_THERE_MS = 300;
/** More patience for each filesystem: on one busy processor a thousand threads have their turn before the answer. */
const STILL_THERE_EACH_MS = 1;

export interface HoldRequest {
  readonly session: string;
  readonly owner: string;
  readonly leaseMaxMs: number;
  /** How long what comes before the freeze may take. */
  readonly budgetMs: number;
  /** How long the freeze of each filesystem may take. One that takes longer ends the attempt. */
  readonly freezeLimitMs: number;
  readonly expedite: boolean;
}

export interface ThawResult {
  /** Those of the thaw, and those of a freeze that did not come to its end. */
  readonly answers: readonly FilesystemAnswer[];
  readonly end?: HoldEnd;
  /** The freezer was gone, and what it had frozen was thawed by its marker. */
  readonly byMarker: boolean;
  /** The freezer's words, if something is not thawed yet. It goes on, and may be asked once more: then it gives up. */
  readonly unfinished?: string;
  /** Why it is not known that everything is thawed. */
  readonly unconfirmed?: string;
}

export class FreezerHold {
  readonly #places: FreezerPlaces;
  readonly #request: HoldRequest;
  readonly #lease: LeaseWatch;
  #connection: FreezerConnection | undefined;
  #identity: FreezerIdentity | undefined;
  #expiryAnswers: readonly FilesystemAnswer[] = [];
  /** What is known of a freeze that was refused or ended. */
  #freezeAnswers: readonly FilesystemAnswer[] = [];
  /** The freezer did not answer a thaw. */
  #mute = false;
  #lost: Error | undefined;

  private constructor(places: FreezerPlaces, request: HoldRequest, onEnd: (end: HoldEnd) => void) {
    this.#places = places;
    this.#request = request;
    this.#lease = new LeaseWatch(onEnd);
  }

  /**
   * Connects and takes the lock of this machine; what `open` asks for is sent with it, and answered when this returns.
   * `onEnd` may be called more than once, until close(). Throws a StateError (facts: holder) if somebody else has the
   * lock, an UnreachableError if there is no freezer, and what `open` throws.
   */
  static async take(
    places: FreezerPlaces,
    request: HoldRequest,
    open: (freezer: FreezerConnection) => Promise<void>,
    onEnd: (end: HoldEnd) => void,
  ): Promise<FreezerHold> {
    const hold = new FreezerHold(places, request, onEnd);
    try {
      hold.#connection = await connectFreezer(places, {
        onExpired: () => {
          hold.#lease.expired();
        },
        onThawed: (answers) => {
          hold.#expiryAnswers = answers;
        },
        onLost: (error) => {
          hold.#lost = error;
          onEnd({ outcome: 'broken', error: `the freezer died: ${error.message}` });
        },
      });
      // All are sent at once: a turn between the two processes costs as much as the rest of it.
      const answered = Promise.all([hold.#plan(request.budgetMs), open(hold.#connection)]);
      answered.catch(() => undefined);
      hold.#identity = await hold.#connection.hello();
      await answered;
      return hold;
    } catch (error) {
      hold.close();
      throw error;
    }
  }

  get connection(): FreezerConnection {
    if (this.#connection === undefined) throw new StateError('the freezer', 'not connected', ['connected']);
    return this.#connection;
  }

  /** FIFREEZE may have been called: filesystems may be frozen. */
  get armed(): boolean {
    return this.#lease.armed;
  }

  get remainingMs(): number {
    return this.#lease.remainingMs;
  }

  /** What went wrong with the freezer itself, if anything. */
  get failure(): string | undefined {
    if (this.#silent) return 'the freezer did not answer within the lease';
    return this.#lost === undefined ? undefined : `the freezer died: ${this.#lost.message}`;
  }

  get #silent(): boolean {
    return this.#mute || this.#lease.silent;
  }

  /**
   * Freezes all that was added. Throws a QuiesceError if it is refused or ended meanwhile, not for single filesystems.
   */
  async freeze(leaseMs: number): Promise<readonly FilesystemAnswer[]> {
    this.#lease.arm(leaseMs);
    const answer = await this.connection.freeze(leaseMs, this.#request.freezeLimitMs);
    if (!answer.ok) {
      this.#freezeAnswers = answer.answers;
      const expired = answer.code === 'expired';
      throw new QuiesceError('E_FREEZE', expired ? 'the lease ended before all was frozen' : answer.text);
    }
    this.#lease.begin(answer.firstMs, answer.deadlineMs);
    return answer.answers;
  }

  /**
   * For a session without filesystems, as the freezer freezes at least one. The lock stays, and the lease is kept here.
   * The freezer bounds it all the same, should this process be stopped: by the budget of a plan, which it ends by
   * force.
   */
  async freezeNothing(leaseMs: number): Promise<void> {
    await this.#planAnew(leaseMs);
    const firstMs = monotonicMs();
    this.#lease.begin(firstMs, firstMs + leaseMs);
  }

  /**
   * When nothing is frozen any more: keeps the lock while the writers are released, and lets the freezer end this
   * process if that takes longer than `limitMs`. So a process that was stopped is replaced, and its successor releases.
   * Never throws.
   */
  keepForRelease(limitMs: number): void {
    this.#lease.stop();
    if (this.failure === undefined) this.#planAnew(limitMs).catch(() => undefined);
  }

  // A plan's budget cannot be changed, so it is planned anew. Both are sent at once: nobody takes the lock between
  // them.
  async #planAnew(budgetMs: number): Promise<void> {
    await Promise.all([this.connection.thaw(), this.#plan(budgetMs)]);
  }

  /** Moves the end of the lease. Returns the refusal, if there is one. */
  async renew(leaseMs: number): Promise<Refusal | undefined> {
    if (this.armed) {
      const answer = await this.connection.renew(leaseMs);
      if (!answer.ok) return answer;
      this.#lease.renew(answer.deadlineMs);
      return undefined;
    }
    const leftMs = Math.max(1, Math.min(leaseMs, this.#lease.firstMs + this.#request.leaseMaxMs - monotonicMs()));
    await this.#planAnew(leftMs);
    this.#lease.renew(monotonicMs() + leftMs);
    return undefined;
  }

  /** While it is on, expiry waits, at most `boundMs`. Returns the refusal, if there is one. */
  async critical(on: boolean, boundMs: number): Promise<Refusal | undefined> {
    if (!this.armed) return undefined;
    const answer = await this.connection.critical(on, boundMs);
    if (!answer.ok) return answer;
    this.#lease.critical(on, boundMs);
    return undefined;
  }

  /** Thaws what was frozen, by the freezer or without it, and says what became of it. Never throws. */
  async thaw(): Promise<ThawResult> {
    this.#lease.stop();
    if (this.failure !== undefined) return await this.#thawWithoutFreezer(this.failure);
    try {
      const answer = await this.#thawAnswer();
      const answers = [...this.#freezeAnswers, ...this.#expiryAnswers, ...answer.answers];
      if (answer.ok) return { answers, byMarker: false };
      return answer.code === 'expired'
        ? { answers, byMarker: false, end: this.#lease.expiry() }
        : { answers, byMarker: false, unfinished: answer.text };
    } catch (error) {
      this.#mute = error instanceof DeadlineError;
      return await this.#thawWithoutFreezer(`the freezer was lost: ${describeError(error)}`);
    }
  }

  // A freezer that waits for a disk answers a question meanwhile. A freezer that is stopped answers nothing, and the
  // end of the lease may be near.
  async #thawAnswer(): ReturnType<FreezerConnection['thaw']> {
    const { connection } = this;
    const thawed = connection.thaw();
    thawed.catch(() => undefined);
    const patienceMs = STILL_THERE_MS + STILL_THERE_EACH_MS * connection.filesystems;
    const timer = new Timer();
    const first = await Promise.race([thawed, timer.after(patienceMs, 'late' as const)]);
    timer.clear();
    if (first !== 'late') return first;
    await connection.status(patienceMs);
    return await thawed;
  }

  /** Gives up the lock. May be called at any time; what is frozen is thawed then. */
  close(): void {
    this.#lease.stop();
    this.#connection?.close();
  }

  /** While nothing is frozen: gives up the lock by word, so that the next one finds it free. Never throws. */
  async release(): Promise<void> {
    const released = this.#connection?.thaw().catch(() => undefined);
    const timer = new Timer();
    // A freezer that is stopped says nothing. It sees the connection closed when it goes on.
    await Promise.race([released, timer.after(STILL_THERE_MS, undefined)]);
    timer.clear();
    this.close();
  }

  async #plan(budgetMs: number): Promise<void> {
    const { session, owner, leaseMaxMs, expedite } = this.#request;
    const answer = await this.connection.plan({
      session,
      owner,
      leaseMaxMs,
      budgetMs: Math.min(budgetMs + PLAN_SLACK_MS, LONGEST_PLAN_MS),
      expedite,
    });
    if (answer.ok) return;
    if (answer.code !== 'busy') throw new QuiesceError('E_FREEZER', `freezer: plan refused: ${answer.text}`);
    const [word = '\\', since = '0', until = '0'] = answer.words;
    const holder = { requester: freezerText(word), sinceMs: Number(since) / 1e6, untilMs: Number(until) / 1e6 };
    throw new StateError('a freeze', `held by ${holder.requester}`, ['idle'], { holder });
  }

  async #thawWithoutFreezer(error: string): Promise<ThawResult> {
    const end = { outcome: 'broken', error } as const;
    const answers = [...this.#freezeAnswers, ...this.#expiryAnswers];
    if (this.#silent && this.#identity !== undefined) killFreezer(this.#identity);
    this.close();
    try {
      await thawMarked(this.#places, this.#request.session);
      return { answers, end, byMarker: true };
    } catch (failure) {
      return { answers, end, byMarker: false, unconfirmed: describeError(failure) };
    }
  }
}
