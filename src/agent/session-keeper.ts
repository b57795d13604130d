// Who holds the guest, and who may end it. The coordinator knows one session; this knows from which side it came: a
// plain thaw of any host channel ends a host session, whichever channel began it, or aborts one on its way; a session
// held inside the guest refuses it, naming its holder, and the other way round. What is owed to a plain thaw that comes
// too late: owed-errors.ts.
import type { FreezeReport, FreezeRequest, Untold } from '../consistency.js';
import { QuiesceError, ThawUnconfirmedError } from '../errors.js';
import type { LocalCoordinator, LocalSession } from '../freeze/options.js';
import { ThawPendingError } from '../freeze/session/errors.js';
import { dropOldest, OwedErrors, reportOf } from './owed-errors.js';
import type { LateThawNote } from './late-thaw-note.js';
import type { ChannelContext, Origin } from './origin.js';

interface Attempt {
  readonly origin: Origin;
  readonly requester: string;
  readonly session: string | undefined;
  readonly abort: AbortController;
  /** Settles when the attempt has come to its end, either way, and that is recorded. Never rejects. */
  readonly done: Promise<void>;
}

interface Held {
  readonly origin: Origin;
  readonly session: LocalSession;
  /** Begun by guest-fsfreeze-freeze, whose requester a plain thaw is. */
  readonly plain: boolean;
  /** Its requester is being told how it ends. */
  told: boolean;
}

/** Final reports kept for a requester whose reply was lost. */
const REPORTS_KEPT = 16;

export class SessionKeeper {
  readonly #coordinator: LocalCoordinator;
  #attempt: Attempt | undefined;
  #held: Held | undefined;
  readonly #ended = new Map<string, { readonly origin: Origin; readonly report: FreezeReport }>();
  readonly #owed: OwedErrors;

  /** The host is owed what the note says. */
  constructor(coordinator: LocalCoordinator, note: LateThawNote) {
    this.#coordinator = coordinator;
    this.#owed = new OwedErrors(note);
  }

  /**
   * Sessions that ended by themselves and whose requesters were not told, the latest last. Who only asks for it is not
   * told by it: a requester is by its thaw, plain or by name.
   */
  get untold(): readonly Untold[] {
    return this.#owed.untold;
  }

  /** What this side's next plain thaw will be told. */
  owedTo(origin: Origin): string | undefined {
    return this.#owed.to(origin)?.message;
  }

  /** Who holds the guest, for the one who is refused; undefined while nobody does. */
  get holder(): string | undefined {
    if (this.#held !== undefined) return describeHolder(this.#held.origin, this.#held.session);
    if (this.#attempt === undefined) return undefined;
    const { origin, requester } = this.#attempt;
    return `${requester} (${where(origin)}), on its way`;
  }

  /** As Coordinator.freeze. A new freeze clears what was owed to a late thaw. */
  async freeze(request: FreezeRequest, { origin }: ChannelContext): Promise<LocalSession> {
    const { session } = request;
    if (session !== undefined && (this.#ended.has(session) || session === this.#held?.session.id)) {
      throw new QuiesceError('E_SESSION', `expected a new session id, found '${session}', which was used already`);
    }
    // Somebody else is at it: the coordinator says who, and the attempt that is recorded stays recorded.
    if (this.#attempt !== undefined) return await this.#coordinator.freeze(request);
    // Of a thaw that nobody confirmed only a freeze that succeeds says that it is done: nothing freezes before.
    if (this.#owed.to(origin) instanceof QuiesceError) this.#owed.forget(origin);
    const abort = new AbortController();
    const isPlain = request.require === 'plain';
    const freezing = this.#record(origin, isPlain, this.#coordinator.freeze(request, abort.signal));
    const done = freezing.then(
      () => undefined,
      () => undefined,
    );
    this.#attempt = { origin, requester: request.requester, session, abort, done };
    return await freezing;
  }

  async #record(origin: Origin, plain: boolean, freezing: Promise<LocalSession>): Promise<LocalSession> {
    try {
      const held = await freezing;
      this.#owed.forget(origin);
      this.#hold(origin, plain, held);
      return held;
    } catch (error) {
      this.#remember(origin, reportOf(error));
      if (error instanceof ThawUnconfirmedError) this.#owed.owe(origin, error);
      if (error instanceof ThawPendingError) this.#whenThawed(origin, error.thawed);
      throw error;
    } finally {
      this.#attempt = undefined;
    }
  }

  /**
   * guest-fsfreeze-thaw: ends what this side holds or attempts. Returns the number of filesystems thawed, 0 if
   * nothing was held. A session that another command began is `broken` by it: its own requester may cut later. Throws
   * a QuiesceError if the session had ended otherwise (once), or if the other side holds it.
   */
  async thawPlain({ origin, name }: ChannelContext): Promise<number> {
    const attempt = this.#attempt;
    if (attempt !== undefined) {
      this.#refuseStranger(attempt.origin, origin);
      attempt.abort.abort(new QuiesceError('E_ABORTED', 'aborted by guest-fsfreeze-thaw'));
      await attempt.done;
    }
    if (this.#held === undefined) {
      const owed = this.#owed.tell(origin);
      if (owed === undefined) return 0;
      throw owed;
    }
    const held = this.#held;
    this.#refuseStranger(held.origin, origin);
    const stranger = held.plain ? undefined : `ended by guest-fsfreeze-thaw on ${name}`;
    const report = await this.#end(held, stranger);
    const failure = endedError(report);
    if (failure !== undefined && (stranger === undefined || report.error !== stranger)) throw failure;
    return held.session.thawedCount;
  }

  /**
   * bridge-thaw: ends the session named, or gives the final report of one that already ended. Throws a QuiesceError
   * if there is none of this name on this side, a ThawUnconfirmedError while it is not known to be thawed.
   */
  async thaw(id: string, { origin }: ChannelContext): Promise<FreezeReport> {
    const attempt = this.#attempt;
    if (attempt?.session === id) {
      this.#refuseStranger(attempt.origin, origin);
      attempt.abort.abort(new QuiesceError('E_ABORTED', 'aborted by bridge-thaw'));
      await attempt.done;
    }
    const held = this.#held;
    if (held?.session.id === id) {
      this.#refuseStranger(held.origin, origin);
      return await this.#end(held);
    }
    const ended = this.#ended.get(id);
    if (ended === undefined) throw unknownSession(id, this.holder);
    this.#refuseStranger(ended.origin, origin);
    if (ended.report.state === 'frozen') throw unconfirmedError(ended.report);
    this.#owed.told(id, origin);
    return ended.report;
  }

  /** bridge-renew. Throws a QuiesceError if the session is not held (any more). */
  async renew(id: string, leaseMs: number, { origin }: ChannelContext): Promise<number> {
    const held = this.#held;
    if (held?.session.id !== id) {
      const ended = this.#ended.get(id)?.report;
      if (ended === undefined) throw unknownSession(id, this.holder);
      const how = endedOtherwise(ended) ?? 'it was thawed';
      throw new QuiesceError('E_ENDED', `session ${id} has ended: ${how}`, { facts: { report: ended } });
    }
    this.#refuseStranger(held.origin, origin);
    const { remainingMs } = await held.session.renew(leaseMs);
    return remainingMs;
  }

  #hold(origin: Origin, plain: boolean, session: LocalSession): void {
    const held: Held = { origin, plain, session, told: false };
    this.#held = held;
    void session.ended.then((report) => {
      if (this.#held === held) this.#held = undefined;
      this.#remember(origin, report);
      const failure = endedError(report);
      if (report.state === 'frozen') this.#owed.owe(origin, unconfirmedError(report));
      else if (!held.told && failure !== undefined) this.#owed.oweEnd(origin, failure, report);
    });
    this.#whenThawed(origin, session.thawed);
  }

  // What nobody confirmed at its end is known now.
  #whenThawed(origin: Origin, thawed: Promise<FreezeReport>): void {
    void thawed.then((report) => {
      if (this.#ended.get(report.session)?.report.state === 'frozen') this.#remember(origin, report);
      const owed = this.#owed.to(origin);
      // A new freeze may have made it moot, and another one's thaw be unconfirmed.
      if (!(owed instanceof ThawUnconfirmedError) || reportOf(owed)?.session !== report.session) return;
      // Now it is a matter of one error; of none for an attempt, whose requester was told.
      const failure = endedError(report);
      if (failure === undefined) this.#owed.forget(origin);
      else this.#owed.owe(origin, failure);
    });
  }

  async #end(held: Held, stranger?: string): Promise<FreezeReport> {
    held.told = true;
    try {
      const { session } = held;
      const report = await (stranger === undefined ? session.thaw() : session.breakOff(stranger));
      this.#remember(held.origin, report);
      return report;
    } catch (error) {
      if (error instanceof ThawUnconfirmedError) this.#owed.owe(held.origin, error);
      throw error;
    } finally {
      if (this.#held === held) this.#held = undefined;
    }
  }

  #remember(origin: Origin, report: FreezeReport | undefined): void {
    if (report === undefined) return;
    this.#ended.delete(report.session);
    this.#ended.set(report.session, { origin, report });
    dropOldest(this.#ended, REPORTS_KEPT);
  }

  #refuseStranger(holder: Origin, origin: Origin): void {
    if (holder === origin) return;
    throw new QuiesceError(
      'E_HELD',
      `the guest is held by ${this.holder ?? `a requester ${where(holder)}`}: it alone can end that`,
    );
  }
}

/** In a plain thaw's words: why a session that was frozen is worth less than its requester believes; undefined if it ended as it should. */
function endedOtherwise(report: FreezeReport): string | undefined {
  switch (report.outcome) {
    case 'ok':
    case 'incomplete':
    case 'unreleased':
    case 'failed':
      return undefined;
    case 'expired': {
      const seconds = Math.round(report.frozenWindowMs / 100) / 10;
      return `thawed after ${seconds} s, before the requester asked: the snapshot is not consistent`;
    }
    case 'broken':
      return `${report.error ?? 'the freeze was broken'}: the snapshot is not consistent`;
  }
}

function endedError(report: FreezeReport): QuiesceError | undefined {
  const failure = endedOtherwise(report);
  return failure === undefined ? undefined : new QuiesceError('E_ENDED', failure, { facts: { report } });
}

function unconfirmedError(report: FreezeReport): ThawUnconfirmedError {
  return new ThawUnconfirmedError('E_THAW', report.error ?? 'nobody confirmed the thaw', { facts: { report } });
}

function unknownSession(id: string, holder: string | undefined): QuiesceError {
  return new QuiesceError(
    'E_SESSION',
    `no session '${id}' here; ${holder === undefined ? 'nobody holds the guest' : `held by ${holder}`}`,
  );
}

function describeHolder(origin: Origin, { requester, id }: LocalSession): string {
  return `${requester} (${where(origin)}, session ${id})`;
}

function where(origin: Origin): string {
  return origin === 'host' ? 'on the host' : 'inside the guest';
}
