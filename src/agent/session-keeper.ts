// Knows who holds the guest, and who may end that. The coordinator knows one session; the keeper knows whose it is. A
// plain thaw on any channel of the host ends a session of the host, whichever channel began it, or aborts an attempt on
// its way. A session held from inside the guest refuses the host's thaw and names its holder, and the other way round.
// Whose it is inside the guest: holder.ts. What is owed to a requester whose thaw comes too late: owed-errors.ts.
import type { CompleteOutcome, Completion, FreezeReport, FreezeRequest, Untold } from '../consistency.js';
import { defined } from '../defined.js';
import { QuiesceError, ThawUnconfirmedError } from '../errors.js';
import type { LocalCoordinator, LocalSession } from '../freeze/options.js';
import { ThawPendingError } from '../freeze/session/errors.js';
import type { ProcessId } from '../linux/process-stat.js';
import { claimOf, endingChannel, type Claim, type Holder } from './holder.js';
import type { LateThawNote } from './late-thaw-note.js';
import type { ChannelContext, Origin } from './origin.js';
import { dropOldest, OwedErrors } from './owed-errors.js';
import {
  describeHolder,
  heldByOtherError,
  notConsistentError,
  reportOf,
  sideOf,
  unconfirmedError,
  unknownSessionError,
  whyNotConsistent,
} from './session-errors.js';

/** A freeze that is on its way. */
interface Attempt {
  readonly holder: Holder;
  readonly requester: string;
  /** The id that the requester chose; undefined if the coordinator makes one up. */
  readonly session: string | undefined;
  readonly abort: AbortController;
  /** Settles when the attempt has succeeded or failed, and that is recorded. Never rejects. */
  readonly recorded: Promise<void>;
}

interface HeldSession {
  readonly holder: Holder;
  readonly session: LocalSession;
  /** Begun by guest-fsfreeze-freeze: whoever sends a plain thaw is its requester. */
  readonly isPlain: boolean;
  /** Its requester hears how the session ended, by the answer to the thaw; or nobody is left to hear of it. */
  isEndTold: boolean;
}

interface FinalReport {
  readonly holder: Holder;
  readonly report: FreezeReport;
}

/** Why a session ended whose requester wanted that. */
const GONE = 'its requester ended the connection';
/** Final reports kept, for requesters whose reply was lost; beyond, the oldest are forgotten. */
const REPORTS_KEPT = 16;

export class SessionKeeper {
  readonly #coordinator: LocalCoordinator;
  #attempt: Attempt | undefined;
  #held: HeldSession | undefined;
  /** By session, the latest last. */
  readonly #finalReports = new Map<string, FinalReport>();
  readonly #owed: OwedErrors;

  /** The host is owed what the note says. */
  constructor(coordinator: LocalCoordinator, note: LateThawNote) {
    this.#coordinator = coordinator;
    this.#owed = new OwedErrors(note);
  }

  /**
   * Sessions that ended by themselves and whose requesters were not told, the latest last. This tells nobody: a
   * requester is told by the answer to its thaw, plain or by name.
   */
  get untold(): readonly Untold[] {
    return this.#owed.untold;
  }

  /** The text of the error that this side's next plain thaw is owed; undefined if none is. */
  owedTo(origin: Origin): string | undefined {
    return this.#owed.to(origin)?.message;
  }

  /** Who holds the guest or is about to, in words for the one who is refused; undefined if nobody does. */
  get holder(): string | undefined {
    if (this.#held !== undefined) return describeHolder(this.#held.holder.origin, this.#held.session);
    if (this.#attempt === undefined) return undefined;
    const { holder, requester } = this.#attempt;
    return `${requester} (${sideOf(holder.origin)}), on its way`;
  }

  /** As `holder`, if that is somebody else than the asker. */
  heldFor(asker: ChannelContext): string | undefined {
    const held = this.#held ?? this.#attempt;
    const claim = held === undefined ? 'holder' : claimOf(held.holder, asker);
    return claim === 'holder' || claim === 'successor' ? undefined : this.holder;
  }

  /**
   * As Coordinator.freeze. A new freeze makes an error moot that is owed about the end of an earlier session.
   * `endsWithChannel`: the attempt, and the session, ends as soon as the connection of `context` does. Throws a
   * UsageError, too, if that is the host's.
   */
  async freeze(
    request: FreezeRequest,
    context: ChannelContext,
    { endsWithChannel = false }: { readonly endsWithChannel?: boolean } = {},
  ): Promise<LocalSession> {
    const { session } = request;
    const { origin, client } = context;
    const gone = endsWithChannel ? endingChannel(context) : undefined;
    if (session !== undefined && (this.#finalReports.has(session) || session === this.#held?.session.id)) {
      throw new QuiesceError('E_SESSION', `expected a new session id, found '${session}', which was used already`);
    }
    // Another attempt is on its way: the coordinator says whose, and the one that is recorded stays recorded.
    if (this.#attempt !== undefined) return await this.#coordinator.freeze(request);
    const holder = { origin, ...defined({ client }) };
    this.#owed.freezeBegins(holder);
    const abort = new AbortController();
    const signal = gone === undefined ? abort.signal : AbortSignal.any([abort.signal, gone]);
    const isPlain = request.require === 'plain';
    const freezing = this.#record({ holder, isPlain }, gone, this.#coordinator.freeze(request, signal));
    const recorded = freezing.then(
      () => undefined,
      () => undefined,
    );
    this.#attempt = { holder, requester: request.requester, session, abort, recorded };
    return await freezing;
  }

  /** Records what becomes of an attempt. Throws what the attempt throws. */
  async #record(
    { holder, isPlain }: Pick<HeldSession, 'holder' | 'isPlain'>,
    gone: AbortSignal | undefined,
    freezing: Promise<LocalSession>,
  ): Promise<LocalSession> {
    try {
      const session = await freezing;
      this.#owed.freezeSucceeded(holder);
      const held = { holder, session, isPlain, isEndTold: false };
      this.#hold(held);
      if (gone !== undefined) this.#endWith(gone, held);
      return session;
    } catch (error) {
      this.#keepReport(holder, reportOf(error));
      if (error instanceof ThawUnconfirmedError) this.#owed.owe(holder, error);
      if (error instanceof ThawPendingError) this.#whenConfirmed(holder, error.thawed);
      throw error;
    } finally {
      this.#attempt = undefined;
    }
  }

  /** Ends the session as soon as its requester is gone, which may be already. */
  #endWith(gone: AbortSignal, held: HeldSession): void {
    const end = (): void => {
      held.isEndTold = true;
      // What goes wrong is in the report, and owed to whoever comes next.
      void this.#finish(held, GONE).catch(() => undefined);
    };
    if (gone.aborted) {
      end();
      return;
    }
    gone.addEventListener('abort', end);
    void held.session.ended.then(() => {
      gone.removeEventListener('abort', end);
    });
  }

  /**
   * guest-fsfreeze-thaw: ends what this holder holds or attempts. Returns the number of filesystems thawed, 0 if nothing
   * was held. A session that another command began ends as `broken`: its own requester may cut later. Throws a
   * QuiesceError if somebody else holds the guest, or, once, if the session ended by itself; a ThawUnconfirmedError
   * while a filesystem is not known to be thawed.
   */
  async thawPlain(asker: ChannelContext): Promise<number> {
    const attempt = this.#attempt;
    if (attempt !== undefined) {
      this.#checkClaim(attempt.holder, asker, ['holder', 'successor']);
      attempt.abort.abort(new QuiesceError('E_ABORTED', 'aborted by guest-fsfreeze-thaw'));
      await attempt.recorded;
    }
    const held = this.#held;
    if (held === undefined) {
      const owed = this.#owed.take(asker);
      if (owed !== undefined) throw owed;
      const stranger = await this.#stranger();
      if (stranger !== undefined) throw heldByOtherError(stranger);
      return 0;
    }
    const claim = this.#checkClaim(held.holder, asker, ['holder', 'successor']);
    if (claim === 'successor') await held.session.closeSections();
    const breakReason = held.isPlain ? undefined : `ended by guest-fsfreeze-thaw on ${asker.name}`;
    held.isEndTold = true;
    const report = await this.#finish(held, breakReason);
    const failure = notConsistentError(report);
    if (failure !== undefined && (breakReason === undefined || report.error !== breakReason)) throw failure;
    return held.session.thawedCount;
  }

  /**
   * bridge-thaw: ends the session of this id, or gives the final report of one that already ended. Root may end the
   * session of another program in the guest: as `broken`, since nobody knows whether the cut was taken. Throws a
   * QuiesceError if the asker has no such session, a ThawUnconfirmedError while it is not known to be thawed.
   */
  async thaw(id: string, asker: ChannelContext): Promise<FreezeReport> {
    const attempt = this.#attempt;
    if (attempt?.session === id) {
      this.#checkClaim(attempt.holder, asker);
      attempt.abort.abort(new QuiesceError('E_ABORTED', 'aborted by bridge-thaw'));
      await attempt.recorded;
    }
    const held = this.#held;
    if (held?.session.id === id) {
      const claim = this.#checkClaim(held.holder, asker);
      if (claim === 'root') return await this.#finish(held, `ended by root, by bridge-thaw on ${asker.name}`);
      held.isEndTold = true;
      if (claim === 'successor') await held.session.closeSections();
      return await this.#finish(held);
    }
    const ended = this.#finalReports.get(id);
    if (ended === undefined) throw unknownSessionError(id, this.holder ?? (await this.#stranger()));
    const claim = this.#checkClaim(ended.holder, asker);
    if (ended.report.state === 'frozen') throw unconfirmedError(ended.report);
    if (claim !== 'root') this.#owed.markTold(id, asker.origin);
    return ended.report;
  }

  /**
   * bridge-complete, as Coordinator.complete. Throws a QuiesceError, too, if the session was somebody else's; whose a
   * session of an agent before this one was is not known.
   */
  async complete(id: string, outcome: CompleteOutcome, asker: ChannelContext): Promise<Completion> {
    const ended = this.#finalReports.get(id);
    if (ended !== undefined && claimOf(ended.holder, asker) === undefined)
      throw new QuiesceError(
        'E_HELD',
        `session ${id} was held by ${ended.report.requester} ${sideOf(ended.holder.origin)}: it alone can complete it`,
      );
    return await this.#coordinator.complete(id, outcome);
  }

  /** bridge-renew: the milliseconds left. Throws a QuiesceError if the session is not held, or not any more. */
  async renew(id: string, leaseMs: number, asker: ChannelContext): Promise<number> {
    const { holder, session } = await this.#heldNow(id);
    this.#checkClaim(holder, asker, ['holder', 'successor']);
    const { remainingMs } = await session.renew(leaseMs);
    return remainingMs;
  }

  /**
   * bridge-critical, as LocalSession.critical. Throws a QuiesceError, too, if the session is not held, or not by this
   * asker, or if that is not root, who alone has devices to suspend.
   */
  async critical(
    id: string,
    on: boolean,
    { boundMs, worker }: { readonly boundMs: number; readonly worker?: ProcessId },
    asker: ChannelContext,
  ): Promise<void> {
    if (asker.client?.isRoot !== true)
      throw new QuiesceError(
        'E_HELD',
        `bridge-critical: expected a requester on the socket that is root's alone, found ${asker.name}`,
      );
    const { holder, session } = await this.#heldNow(id);
    this.#checkClaim(holder, asker, ['holder']);
    await session.critical(on, boundMs, worker);
  }

  async #heldNow(id: string): Promise<HeldSession> {
    const held = this.#held;
    if (held?.session.id === id) return held;
    const ended = this.#finalReports.get(id)?.report;
    if (ended === undefined) throw unknownSessionError(id, this.holder ?? (await this.#stranger()));
    const how = whyNotConsistent(ended) ?? 'it was thawed';
    throw new QuiesceError('E_ENDED', `session ${id} has ended: ${how}`, { facts: { report: ended } });
  }

  /** Holds it until it ends, whoever ends it, and records how. */
  #hold(held: HeldSession): void {
    const { holder, session } = held;
    this.#held = held;
    void session.ended.then((report) => {
      if (this.#held === held) this.#held = undefined;
      this.#keepReport(holder, report);
      const failure = notConsistentError(report);
      if (report.state === 'frozen') this.#owed.owe(holder, unconfirmedError(report));
      else if (!held.isEndTold && failure !== undefined) this.#owed.oweEnd(holder, failure, report);
    });
    this.#whenConfirmed(holder, session.thawed);
  }

  /** A thaw that nobody confirmed when the session ended is confirmed when `thawed` settles. */
  #whenConfirmed(holder: Holder, thawed: Promise<FreezeReport>): void {
    void thawed.then((report) => {
      if (this.#finalReports.get(report.session)?.report.state === 'frozen') this.#keepReport(holder, report);
      const owed = this.#owed.to(holder.origin);
      // A new freeze may have made the error moot, and the thaw of that one may be unconfirmed.
      if (!(owed instanceof ThawUnconfirmedError) || reportOf(owed)?.session !== report.session) return;
      // One error is owed about the end from now on; none for an attempt, whose requester was told.
      const failure = notConsistentError(report);
      if (failure === undefined) this.#owed.forget(holder.origin);
      else this.#owed.owe(holder, failure);
    });
  }

  /** @param breakReason the session ends as `broken`, for this reason; without it, as its requester asks */
  async #finish(held: HeldSession, breakReason?: string): Promise<FreezeReport> {
    try {
      const { session } = held;
      const report = await (breakReason === undefined ? session.thaw() : session.breakOff(breakReason));
      this.#keepReport(held.holder, report);
      return report;
    } catch (error) {
      if (error instanceof ThawUnconfirmedError) this.#owed.owe(held.holder, error);
      throw error;
    } finally {
      if (this.#held === held) this.#held = undefined;
    }
  }

  #keepReport(holder: Holder, report: FreezeReport | undefined): void {
    if (report === undefined) return;
    this.#finalReports.delete(report.session);
    this.#finalReports.set(report.session, { holder, report });
    dropOldest(this.#finalReports, REPORTS_KEPT);
  }

  /** Who holds the freezer, in words, if it is no session of this agent. */
  async #stranger(): Promise<string | undefined> {
    const { state, session = 'unknown', requester = 'somebody' } = await this.#coordinator.status();
    const isOurs = this.#finalReports.has(session) || session === this.#coordinator.lastReport?.session;
    return state === 'idle' || isOurs ? undefined : `${requester} (session ${session}, none of this agent's)`;
  }

  /** What the asker is to a session of `holder`. Throws a QuiesceError, which names the holder, if none of `claims`. */
  #checkClaim(holder: Holder, asker: Holder, claims: readonly Claim[] = ['holder', 'successor', 'root']): Claim {
    const claim = claimOf(holder, asker);
    if (claim !== undefined && claims.includes(claim)) return claim;
    throw heldByOtherError(this.holder ?? `a requester ${sideOf(holder.origin)}`, holder.origin === asker.origin);
  }
}
