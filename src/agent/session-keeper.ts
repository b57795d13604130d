// Knows who holds the guest, and who may end that. The coordinator knows one session; the keeper knows from which side
// it came. A plain thaw on any channel of the host ends a session of the host, whichever channel began it, or aborts an
// attempt on its way. A session held from inside the guest refuses the host's thaw and names its holder, and the other
// way round. What is owed to a requester whose thaw comes too late: owed-errors.ts.
import type { CompleteOutcome, Completion, FreezeReport, FreezeRequest, Untold } from '../consistency.js';
import { QuiesceError, ThawUnconfirmedError } from '../errors.js';
import type { LocalCoordinator, LocalSession } from '../freeze/options.js';
import { ThawPendingError } from '../freeze/session/errors.js';
import type { LateThawNote } from './late-thaw-note.js';
import type { ChannelContext, Origin } from './origin.js';
import { dropOldest, OwedErrors } from './owed-errors.js';
import {
  describeHolder,
  notConsistentError,
  reportOf,
  sideOf,
  unconfirmedError,
  unknownSessionError,
  whyNotConsistent,
} from './session-errors.js';

/** A freeze that is on its way. */
interface Attempt {
  readonly origin: Origin;
  readonly requester: string;
  /** The id that the requester chose; undefined if the coordinator makes one up. */
  readonly session: string | undefined;
  readonly abort: AbortController;
  /** Settles when the attempt has succeeded or failed, and that is recorded. Never rejects. */
  readonly recorded: Promise<void>;
}

interface HeldSession {
  readonly origin: Origin;
  readonly session: LocalSession;
  /** Begun by guest-fsfreeze-freeze: whoever sends a plain thaw is its requester. */
  readonly isPlain: boolean;
  /** A thaw has been asked for, whose answer tells how the session ended. */
  isThawAsked: boolean;
}

/** Final reports kept, for requesters whose reply was lost; beyond, the oldest are forgotten. */
const REPORTS_KEPT = 16;

export class SessionKeeper {
  readonly #coordinator: LocalCoordinator;
  #attempt: Attempt | undefined;
  #held: HeldSession | undefined;
  /** By session, the latest last. */
  readonly #finalReports = new Map<string, { readonly origin: Origin; readonly report: FreezeReport }>();
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
    if (this.#held !== undefined) return describeHolder(this.#held.origin, this.#held.session);
    if (this.#attempt === undefined) return undefined;
    const { origin, requester } = this.#attempt;
    return `${requester} (${sideOf(origin)}), on its way`;
  }

  /** As Coordinator.freeze. A new freeze makes an error moot that is owed about the end of an earlier session. */
  async freeze(request: FreezeRequest, { origin }: ChannelContext): Promise<LocalSession> {
    const { session } = request;
    if (session !== undefined && (this.#finalReports.has(session) || session === this.#held?.session.id)) {
      throw new QuiesceError('E_SESSION', `expected a new session id, found '${session}', which was used already`);
    }
    // Another attempt is on its way: the coordinator says whose, and the one that is recorded stays recorded.
    if (this.#attempt !== undefined) return await this.#coordinator.freeze(request);
    // An unconfirmed thaw stays owed until a later freeze succeeds: that alone proves it.
    if (this.#owed.to(origin) instanceof QuiesceError) this.#owed.forget(origin);
    const abort = new AbortController();
    const isPlain = request.require === 'plain';
    const freezing = this.#record(origin, isPlain, this.#coordinator.freeze(request, abort.signal));
    const recorded = freezing.then(
      () => undefined,
      () => undefined,
    );
    this.#attempt = { origin, requester: request.requester, session, abort, recorded };
    return await freezing;
  }

  /** Records what becomes of an attempt. Throws what the attempt throws. */
  async #record(origin: Origin, isPlain: boolean, freezing: Promise<LocalSession>): Promise<LocalSession> {
    try {
      const session = await freezing;
      this.#owed.forget(origin);
      this.#hold({ origin, session, isPlain, isThawAsked: false });
      return session;
    } catch (error) {
      this.#keepReport(origin, reportOf(error));
      if (error instanceof ThawUnconfirmedError) this.#owed.owe(origin, error);
      if (error instanceof ThawPendingError) this.#whenConfirmed(origin, error.thawed);
      throw error;
    } finally {
      this.#attempt = undefined;
    }
  }

  /**
   * guest-fsfreeze-thaw: ends what this side holds or attempts. Returns the number of filesystems thawed, 0 if nothing
   * was held. A session that another command began ends as `broken`: its own requester may cut later. Throws a
   * QuiesceError if the other side holds the guest, or, once, if the session ended by itself; a ThawUnconfirmedError
   * while a filesystem is not known to be thawed.
   */
  async thawPlain({ origin, name }: ChannelContext): Promise<number> {
    const attempt = this.#attempt;
    if (attempt !== undefined) {
      this.#refuseOtherSide(attempt.origin, origin);
      attempt.abort.abort(new QuiesceError('E_ABORTED', 'aborted by guest-fsfreeze-thaw'));
      await attempt.recorded;
    }
    if (this.#held === undefined) {
      const owed = this.#owed.take(origin);
      if (owed === undefined) return 0;
      throw owed;
    }
    const held = this.#held;
    this.#refuseOtherSide(held.origin, origin);
    const breakReason = held.isPlain ? undefined : `ended by guest-fsfreeze-thaw on ${name}`;
    const report = await this.#finish(held, breakReason);
    const failure = notConsistentError(report);
    if (failure !== undefined && (breakReason === undefined || report.error !== breakReason)) throw failure;
    return held.session.thawedCount;
  }

  /**
   * bridge-thaw: ends the session of this id, or gives the final report of one that already ended. Throws a
   * QuiesceError if this side has no such session, a ThawUnconfirmedError while it is not known to be thawed.
   */
  async thaw(id: string, { origin }: ChannelContext): Promise<FreezeReport> {
    const attempt = this.#attempt;
    if (attempt?.session === id) {
      this.#refuseOtherSide(attempt.origin, origin);
      attempt.abort.abort(new QuiesceError('E_ABORTED', 'aborted by bridge-thaw'));
      await attempt.recorded;
    }
    const held = this.#held;
    if (held?.session.id === id) {
      this.#refuseOtherSide(held.origin, origin);
      return await this.#finish(held);
    }
    const ended = this.#finalReports.get(id);
    if (ended === undefined) throw unknownSessionError(id, this.holder);
    this.#refuseOtherSide(ended.origin, origin);
    if (ended.report.state === 'frozen') throw unconfirmedError(ended.report);
    this.#owed.markTold(id, origin);
    return ended.report;
  }

  /**
   * bridge-complete, as Coordinator.complete. Throws a QuiesceError, too, if the session was the other side's; whose
   * a session of an agent before this one was is not known.
   */
  async complete(id: string, outcome: CompleteOutcome, { origin }: ChannelContext): Promise<Completion> {
    const ended = this.#finalReports.get(id);
    if (ended !== undefined && ended.origin !== origin)
      throw new QuiesceError(
        'E_HELD',
        `session ${id} was held by a requester ${sideOf(ended.origin)}: it alone can complete it`,
      );
    return await this.#coordinator.complete(id, outcome);
  }

  /** bridge-renew: the milliseconds left. Throws a QuiesceError if the session is not held, or not any more. */
  async renew(id: string, leaseMs: number, { origin }: ChannelContext): Promise<number> {
    const held = this.#held;
    if (held?.session.id !== id) {
      const ended = this.#finalReports.get(id)?.report;
      if (ended === undefined) throw unknownSessionError(id, this.holder);
      const how = whyNotConsistent(ended) ?? 'it was thawed';
      throw new QuiesceError('E_ENDED', `session ${id} has ended: ${how}`, { facts: { report: ended } });
    }
    this.#refuseOtherSide(held.origin, origin);
    const { remainingMs } = await held.session.renew(leaseMs);
    return remainingMs;
  }

  /** Holds it until it ends, whoever ends it, and records how. */
  #hold(held: HeldSession): void {
    const { origin, session } = held;
    this.#held = held;
    void session.ended.then((report) => {
      if (this.#held === held) this.#held = undefined;
      this.#keepReport(origin, report);
      const failure = notConsistentError(report);
      if (report.state === 'frozen') this.#owed.owe(origin, unconfirmedError(report));
      else if (!held.isThawAsked && failure !== undefined) this.#owed.oweEnd(origin, failure, report);
    });
    this.#whenConfirmed(origin, session.thawed);
  }

  /** A thaw that nobody confirmed when the session ended is confirmed when `thawed` settles. */
  #whenConfirmed(origin: Origin, thawed: Promise<FreezeReport>): void {
    void thawed.then((report) => {
      if (this.#finalReports.get(report.session)?.report.state === 'frozen') this.#keepReport(origin, report);
      const owed = this.#owed.to(origin);
      // A new freeze may have made the error moot, and the thaw of that one may be unconfirmed.
      if (!(owed instanceof ThawUnconfirmedError) || reportOf(owed)?.session !== report.session) return;
      // One error is owed about the end from now on; none for an attempt, whose requester was told.
      const failure = notConsistentError(report);
      if (failure === undefined) this.#owed.forget(origin);
      else this.#owed.owe(origin, failure);
    });
  }

  /** @param breakReason the session ends as `broken`, for this reason; without it, as its requester asks */
  async #finish(held: HeldSession, breakReason?: string): Promise<FreezeReport> {
    held.isThawAsked = true;
    try {
      const { session } = held;
      const report = await (breakReason === undefined ? session.thaw() : session.breakOff(breakReason));
      this.#keepReport(held.origin, report);
      return report;
    } catch (error) {
      if (error instanceof ThawUnconfirmedError) this.#owed.owe(held.origin, error);
      throw error;
    } finally {
      if (this.#held === held) this.#held = undefined;
    }
  }

  #keepReport(origin: Origin, report: FreezeReport | undefined): void {
    if (report === undefined) return;
    this.#finalReports.delete(report.session);
    this.#finalReports.set(report.session, { origin, report });
    dropOldest(this.#finalReports, REPORTS_KEPT);
  }

  #refuseOtherSide(holder: Origin, origin: Origin): void {
    if (holder === origin) return;
    throw new QuiesceError(
      'E_HELD',
      `the guest is held by ${this.holder ?? `a requester ${sideOf(holder)}`}: it alone can end that`,
    );
  }
}
