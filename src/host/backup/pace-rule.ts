// How fast to copy beside a guest that works: as fast as its requests let it. Where they take longer than they do while (next
// to) nothing is copied, the rate falls, else it grows. What they take then changes with what the guest does, so it is
// measured again and again, at the lowest rate. A guest of which nothing is heard has no need of a limit.
import type { RequestTimes } from '../../qmp/request-times.js';

const MEBIBYTE = 1024 * 1024;
/** A copy ends some day, whatever the guest does: a tebibyte within nine hours. */
export const LEAST_RATE = 32 * MEBIBYTE;
const FIRST_RATE = 128 * MEBIBYTE;
/** More than any disk gives: it is no limit any more. */
const MOST_RATE = 16 * 1024 * MEBIBYTE;

/** Of one kind: fewer tell nothing, and are put together with those of the next looks. */
const FEWEST = 10;
/** Looks after which a guest is quiet that made none, and one that made too few. */
const SILENT = 4;
const HARDLY_HEARD = 10;

// Of the mean, which the few requests that wait long for a burst of the copy raise more than the median.
const TOO_SLOW = 2;
const GOAL = 1.7;
const GROWTH = 1.25;
const LEAST_FALL = 0.5;
/** Of what is new, in what is known: a single look is what chance makes of it. */
const WEIGHT = 0.5;

/** Looks between two measurements at the lowest rate. */
const PERIOD = 40;

export interface Look {
  /** Since the look before. */
  readonly requests: RequestTimes;
  /** Bytes per second that were copied meanwhile. */
  readonly copied: number;
}

export class PaceRule {
  /** Nanoseconds of one request. */
  readonly #alone = new Map<string, number>();
  #few: RequestTimes = new Map();
  #rate: number | undefined;
  /** Times that requests took longer, over the last looks. */
  #slower = 1;
  #silentLooks = 0;
  #unheardLooks = 0;
  /** Since requests were measured at the lowest rate. */
  #looks = 0;
  /** The lowest rate comes into force during a look, which tells nothing. */
  #measuring: 'not yet' | 'now' | undefined;

  /** Bytes per second; undefined: as fast as it goes. */
  get rate(): number | undefined {
    return this.#measuring === undefined ? this.#rate : LEAST_RATE;
  }

  /** Takes what the guest's requests took while nothing was copied. */
  learn(requests: RequestTimes): void {
    if (this.#note(this.#enough(requests))) this.#rate = FIRST_RATE;
  }

  /** The rate from now on. */
  next({ requests, copied }: Look): number | undefined {
    this.#looks++;
    const heard = this.#enough(requests);
    this.#silentLooks = requests.size > 0 ? 0 : this.#silentLooks + 1;
    this.#unheardLooks = heard.size > 0 ? 0 : this.#unheardLooks + 1;
    if (this.#silentLooks >= SILENT || this.#unheardLooks >= HARDLY_HEARD) {
      this.#measuring = undefined;
      this.#grow(copied);
    } else if (this.#measuring !== undefined) this.#measure(heard);
    else if (heard.size > 0) this.#judge(heard, copied);
    return this.rate;
  }

  /** Those of which there are enough. */
  #enough(requests: RequestTimes): RequestTimes {
    const all = new Map(this.#few);
    for (const [key, { count, ns }] of requests) {
      const few = all.get(key);
      all.set(key, { count: count + (few?.count ?? 0), ns: ns + (few?.ns ?? 0) });
    }
    const heard = new Map([...all].filter(([, { count }]) => count >= FEWEST));
    this.#few = new Map([...all].filter(([key]) => !heard.has(key)));
    return heard;
  }

  /** True if there is anything to be known. */
  #note(heard: RequestTimes): boolean {
    for (const [key, { count, ns }] of heard) {
      const known = this.#alone.get(key);
      this.#alone.set(key, known === undefined ? ns / count : known + WEIGHT * (ns / count - known));
    }
    return heard.size > 0;
  }

  #measure(heard: RequestTimes): void {
    if (this.#measuring === 'not yet') {
      this.#measuring = 'now';
      this.#few = new Map();
      return;
    }
    if (!this.#note(heard)) return;
    this.#measuring = undefined;
    this.#slower = 1;
    this.#looks = 0;
    this.#rate ??= FIRST_RATE;
  }

  #judge(heard: RequestTimes, copied: number): void {
    const known = [...heard].filter(([key]) => this.#alone.has(key));
    if (known.length < heard.size || this.#looks >= PERIOD) {
      this.#measuring = 'not yet';
      return;
    }
    // What takes long while nothing is copied does not do so because of it.
    if (copied === 0) return;
    const took = known.reduce((sum, [, { ns }]) => sum + ns, 0);
    const expected = known.reduce((sum, [key, { count }]) => sum + count * (this.#alone.get(key) ?? 0), 0);
    this.#slower += WEIGHT * (took / Math.max(1, expected) - this.#slower);
    if (this.#slower > TOO_SLOW) {
      const part = Math.max(LEAST_FALL, GOAL / this.#slower);
      this.#rate = Math.max(LEAST_RATE, Math.floor(part * Math.min(this.#rate ?? Infinity, copied)));
      // At the lowest rate, too: what they take now is what they take without us.
      if (this.#rate === LEAST_RATE) this.#note(heard);
    } else if (this.#slower < GOAL) this.#grow(copied);
  }

  #grow(copied: number): void {
    // Else it is not the rate that bounds the copy.
    if (this.#rate === undefined || copied < this.#rate / 2) return;
    const more = Math.floor(this.#rate * GROWTH);
    this.#rate = more > MOST_RATE ? undefined : more;
  }
}
