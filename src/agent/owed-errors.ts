// What requesters are owed that have not heard how their session ended: one error for the next plain thaw of their side,
// and a place in bridge-status until they were told (freeze path, "The guest always comes back", rule 8). The host is owed
// it by the next agent too.
import type { FreezeReport, Untold } from '../consistency.js';
import { QuiesceError, ThawUnconfirmedError } from '../errors.js';
import type { LateThawNote } from './late-thaw-note.js';
import type { Origin } from './origin.js';

type OwedError = QuiesceError | ThawUnconfirmedError;

/** Ends that no requester has asked for. */
const UNTOLD_KEPT = 16;
/** No session has this name. */
const PREDECESSORS = '';

export class OwedErrors {
  readonly #owed = new Map<Origin, OwedError>();
  /** By session. An end stays here when a new freeze has made the error moot that was owed for it. */
  readonly #untold = new Map<string, Untold>();
  readonly #note: LateThawNote;
  /** Only what the agent before wrote is there: else nothing is looked up while everything stands still. */
  #isNoted = false;

  /** The host is owed what the note says. */
  constructor(note: LateThawNote) {
    this.#note = note;
    const reason = note.read();
    if (reason === undefined) return;
    this.#isNoted = true;
    this.#owed.set('host', new QuiesceError('E_ENDED', reason));
    this.#untold.set(PREDECESSORS, { reason });
  }

  /** Sessions that ended by themselves and whose requesters were not told, the latest last. */
  get untold(): readonly Untold[] {
    return [...this.#untold.values()];
  }

  to(origin: Origin): OwedError | undefined {
    return this.#owed.get(origin);
  }

  owe(origin: Origin, error: OwedError): void {
    this.#owed.set(origin, error);
  }

  /** As `owe`, for a session that ended by itself. */
  oweEnd(origin: Origin, failure: QuiesceError, { session, requester }: FreezeReport): void {
    this.#owed.set(origin, failure);
    this.#untold.set(session, { session, requester, reason: failure.message });
    dropOldest(this.#untold, UNTOLD_KEPT);
  }

  /** For a plain thaw. A thaw that nobody confirmed is no matter of one error: 0 would say that all is well. */
  tell(origin: Origin): OwedError | undefined {
    const owed = this.#owed.get(origin);
    if (owed instanceof QuiesceError) {
      this.#untold.delete(sessionOf(owed));
      this.forget(origin);
    }
    return owed;
  }

  /** Its requester has asked for it. What another session's requester is owed stays owed. */
  told(session: string, origin: Origin): void {
    this.#untold.delete(session);
    const owed = this.#owed.get(origin);
    if (owed instanceof QuiesceError && sessionOf(owed) === session) this.forget(origin);
  }

  forget(origin: Origin): void {
    this.#owed.delete(origin);
    if (origin !== 'host' || !this.#isNoted) return;
    this.#note.remove();
    this.#isNoted = false;
  }
}

/** The report in an error of the coordinator's (src/consistency.ts, Coordinator.freeze) or of the keeper's. */
export function reportOf(error: unknown): FreezeReport | undefined {
  if (!(error instanceof QuiesceError || error instanceof ThawUnconfirmedError)) return undefined;
  return error.facts['report'] as FreezeReport | undefined;
}

export function dropOldest(kept: Map<string, unknown>, most: number): void {
  for (const oldest of kept.keys()) {
    if (kept.size <= most) break;
    kept.delete(oldest);
  }
}

/** The session that this error tells the end of. */
function sessionOf(owed: QuiesceError): string {
  return reportOf(owed)?.session ?? PREDECESSORS;
}
