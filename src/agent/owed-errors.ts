// Keeps what requesters are owed that have not heard how their session ended: one error for the next plain thaw of
// their side, and a place in bridge-status until they were told (src/freeze/README.md, rule 8). The host is owed it by
// the next agent too: late-thaw-note.ts.
import type { FreezeReport, Untold } from '../consistency.js';
import { QuiesceError, ThawUnconfirmedError } from '../errors.js';
import { claimOf, type Holder } from './holder.js';
import type { LateThawNote } from './late-thaw-note.js';
import type { Origin } from './origin.js';
import { reportOf } from './session-errors.js';

type OwedError = QuiesceError | ThawUnconfirmedError;

interface Owed {
  readonly error: OwedError;
  /** Whose session it is about. */
  readonly holder: Holder;
}

/** Sessions kept that ended by themselves; beyond, the oldest are forgotten. */
const UNTOLD_KEPT = 16;
/** The session of the agent before this one: no other one has this name. */
const PREDECESSOR = '';

export class OwedErrors {
  readonly #owed = new Map<Origin, Owed>();
  /** By session. A session stays here when a new freeze has made the error moot that was owed for it. */
  readonly #untold = new Map<string, Untold>();
  readonly #note: LateThawNote;
  /**
   * The note of the agent before is still there. Remembered, so that no file is looked for while everything stands
   * still.
   */
  #isNoted = false;

  /** The host is owed what the note says. */
  constructor(note: LateThawNote) {
    this.#note = note;
    const reason = note.read();
    if (reason === undefined) return;
    this.#isNoted = true;
    this.#owed.set('host', { error: new QuiesceError('E_ENDED', reason), holder: { origin: 'host' } });
    this.#untold.set(PREDECESSOR, { reason });
  }

  /** Sessions that ended by themselves and whose requesters were not told, the latest last. */
  get untold(): readonly Untold[] {
    return [...this.#untold.values()];
  }

  to(origin: Origin): OwedError | undefined {
    return this.#owed.get(origin)?.error;
  }

  owe(holder: Holder, error: OwedError): void {
    this.#owed.set(holder.origin, { error, holder });
  }

  /** As `owe`, for a session that ended by itself. */
  oweEnd(holder: Holder, error: QuiesceError, { session, requester }: FreezeReport): void {
    this.owe(holder, error);
    this.#untold.set(session, { session, requester, reason: error.message });
    dropOldest(this.#untold, UNTOLD_KEPT);
  }

  /**
   * The error that a plain thaw is answered with. An error about an end is owed once, and to its requester: another
   * program in the guest is told nothing of it. One about a thaw that nobody confirmed stays owed, to all of its side:
   * an answer of 0 would say that all is well.
   */
  take(asker: Holder): OwedError | undefined {
    const { error, holder } = this.#owed.get(asker.origin) ?? {};
    if (!(error instanceof QuiesceError)) return error;
    if (holder === undefined || !actsFor(holder, asker)) return undefined;
    this.#untold.delete(sessionOf(error));
    this.forget(asker.origin);
    return error;
  }

  /** The requester of `session` has asked how it ended. What another session's requester is owed stays owed. */
  markTold(session: string, origin: Origin): void {
    this.#untold.delete(session);
    const owed = this.to(origin);
    if (owed instanceof QuiesceError && sessionOf(owed) === session) this.forget(origin);
  }

  /** A new freeze of `asker`'s makes the error moot that it is owed about an end, and no other one. */
  freezeBegins(asker: Holder): void {
    const { error, holder } = this.#owed.get(asker.origin) ?? {};
    if (error instanceof QuiesceError && holder !== undefined && actsFor(holder, asker)) this.forget(asker.origin);
  }

  /** A freeze that has succeeded proves that everything was thawed before. */
  freezeSucceeded({ origin }: Holder): void {
    if (this.to(origin) instanceof ThawUnconfirmedError) this.forget(origin);
  }

  /** Nothing is owed to this side any more. */
  forget(origin: Origin): void {
    this.#owed.delete(origin);
    if (origin !== 'host' || !this.#isNoted) return;
    this.#note.remove();
    this.#isNoted = false;
  }
}

/** What `holder` is owed, `asker` may hear in its place. */
function actsFor(holder: Holder, asker: Holder): boolean {
  const claim = claimOf(holder, asker);
  return claim === 'holder' || claim === 'successor';
}

export function dropOldest(kept: Map<string, unknown>, most: number): void {
  for (const oldest of kept.keys()) {
    if (kept.size <= most) break;
    kept.delete(oldest);
  }
}

/** The session whose end this error tells. */
function sessionOf(owed: QuiesceError): string {
  return reportOf(owed)?.session ?? PREDECESSOR;
}
