// How fast to copy beside a guest that works: as fast as its requests let it. What they take while nothing is copied is
// learned; where they take longer, the rate falls, else it grows. A guest of which nothing is heard has no need of a limit.
import { requestKinds, type RequestKind, type RequestTimes } from '../../qmp/request-times.js';

const MEBIBYTE = 1024 * 1024;
/** A copy ends some day, whatever the guest does: a tebibyte within nine hours. */
export const LEAST_RATE = 32 * MEBIBYTE;
const FIRST_RATE = 128 * MEBIBYTE;
/** More than any disk gives: it is no limit any more. */
const MOST_RATE = 16 * 1024 * MEBIBYTE;
/** Of one kind, within one look: fewer tell nothing. */
const FEWEST = 10;

// Of the mean, which the few requests that wait long for a burst of the copy raise more than the median.
const TOO_SLOW = 2;
const GOAL = 1.7;
const GROWTH = 1.25;
const LEAST_FALL = 0.5;
/** Part of what was known: a guest that comes to write less at a time. */
const QUICKER = 0.75;
/** Looks at the lowest rate: what is slow still is not slow because of us. */
const PATIENCE = 4;

export interface Look {
  /** Since the look before. */
  readonly requests: RequestTimes;
  /** Bytes per second that were copied meanwhile. */
  readonly copied: number;
}

export class PaceRule {
  /** Nanoseconds of one request. */
  readonly #alone = new Map<RequestKind, number>();
  #rate: number | undefined;
  #isSettling = false;
  #slowLooks = 0;

  /** Bytes per second; undefined: as fast as it goes. */
  get rate(): number | undefined {
    return this.#rate;
  }

  /** Takes what the guest's requests took while nothing was copied. */
  learn(requests: RequestTimes): void {
    const heard = heardOf(requests);
    this.#note(requests, heard);
    if (heard.length > 0) this.#rate = FIRST_RATE;
  }

  /** The rate from now on. */
  next({ requests, copied }: Look): number | undefined {
    const heard = heardOf(requests);
    if (heard.length === 0) this.#grow(2);
    else if (heard.every((kind) => this.#alone.has(kind))) this.#judge(requests, heard, copied);
    else this.#learnSlowly(requests, heard);
    return this.#rate;
  }

  /** What is not known is learned at the lowest rate, which comes into force during a look. */
  #learnSlowly(requests: RequestTimes, heard: readonly RequestKind[]): void {
    if (this.#rate !== LEAST_RATE) {
      this.#rate = LEAST_RATE;
      this.#isSettling = true;
    } else if (this.#isSettling) this.#isSettling = false;
    else this.#note(requests, heard);
  }

  #judge(requests: RequestTimes, heard: readonly RequestKind[], copied: number): void {
    // By kind: a flush takes longer than a write, and a guest that comes to flush more often is not slower by it.
    const took = heard.reduce((sum, kind) => sum + requests[kind].ns, 0);
    const expected = heard.reduce((sum, kind) => sum + requests[kind].count * (this.#alone.get(kind) ?? 0), 0);
    const slower = took / Math.max(1, expected);
    if (slower > TOO_SLOW) {
      this.#fall(requests, heard, Math.max(LEAST_FALL, GOAL / slower), copied);
      return;
    }
    this.#slowLooks = 0;
    // Else it is not the rate that bounds the copy.
    if (slower < GOAL && copied > (this.#rate ?? Infinity) / 2) this.#grow(GROWTH);
    if (slower < QUICKER) this.#note(requests, heard);
  }

  #fall(requests: RequestTimes, heard: readonly RequestKind[], part: number, copied: number): void {
    if (this.#rate === LEAST_RATE) {
      this.#slowLooks++;
      if (this.#slowLooks < PATIENCE) return;
      this.#note(requests, heard);
      this.#slowLooks = 0;
      return;
    }
    this.#rate = Math.max(LEAST_RATE, Math.floor(part * Math.min(this.#rate ?? Infinity, copied)));
  }

  #note(requests: RequestTimes, heard: readonly RequestKind[]): void {
    for (const kind of heard) this.#alone.set(kind, requests[kind].ns / requests[kind].count);
  }

  #grow(times: number): void {
    if (this.#rate === undefined) return;
    const more = Math.floor(this.#rate * times);
    this.#rate = more > MOST_RATE ? undefined : more;
  }
}

function heardOf(requests: RequestTimes): RequestKind[] {
  return requestKinds.filter((kind) => requests[kind].count >= FEWEST);
}
