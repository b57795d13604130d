// The rate of what is copied, and of what is read again: a fixed one, or by what the guest's own requests take meanwhile
// (pace-rule.ts), asked twice a second.
import { setTimeout as sleep } from 'node:timers/promises';
import { requestsSince, type RequestTimes } from '../../qmp/request-times.js';
import type { Pace } from '../vm/hypervisor.js';
import { PaceRule } from './pace-rule.js';

/** Looks are this far apart, or farther. */
const LOOK_MS = 500;

export interface Pacer {
  /** Before anything is copied: the rate to begin with. Throws the signal's reason when aborted. */
  learn(signal: AbortSignal): Promise<number | undefined>;
  /** Of a copy that begins now. */
  of(): Pace;
}

export class FixedPace implements Pacer {
  readonly #rate: number | undefined;

  constructor(rate: number | undefined) {
    this.#rate = rate;
  }

  learn(): Promise<number | undefined> {
    return Promise.resolve(this.#rate);
  }

  of(): Pace {
    return () => Promise.resolve(this.#rate);
  }
}

export class GuestPace implements Pacer {
  readonly #ask: () => Promise<RequestTimes>;
  readonly #rule = new PaceRule();
  #times: RequestTimes;
  #current = 0;
  #atMs = performance.now();

  private constructor(ask: () => Promise<RequestTimes>, times: RequestTimes) {
    this.#ask = ask;
    this.#times = times;
  }

  /** Throws what `ask` throws, here and later. */
  static async begin(ask: () => Promise<RequestTimes>): Promise<GuestPace> {
    return new GuestPace(ask, await ask());
  }

  /** Learns what requests take while nothing is copied. A guest that has made none meanwhile is not waited for. */
  async learn(signal: AbortSignal): Promise<number | undefined> {
    let times = await this.#ask();
    if (requestsSince(this.#times, times).size > 0) {
      await sleep(Math.max(0, LOOK_MS - (performance.now() - this.#atMs)), undefined, { signal });
      times = await this.#ask();
    }
    this.#rule.learn(requestsSince(this.#times, times));
    this.#note(times, 0);
    return this.#rule.rate;
  }

  of(): Pace {
    let isBegun = false;
    return async (current) => {
      const tookMs = performance.now() - this.#atMs;
      if (isBegun && tookMs < LOOK_MS) return this.#rule.rate;
      const times = await this.#ask();
      if (!isBegun) {
        isBegun = true;
        this.#note(times, current);
        return this.#rule.rate;
      }
      const copied = (1000 * Math.max(0, current - this.#current)) / tookMs;
      const rate = this.#rule.next({ requests: requestsSince(this.#times, times), copied });
      this.#note(times, current);
      return rate;
    };
  }

  #note(times: RequestTimes, current: number): void {
    this.#times = times;
    this.#current = current;
    this.#atMs = performance.now();
  }
}

/** Of less than this nobody is kept waiting. */
const SHORTEST_WAIT_MS = 10;
/** Longer, and who looks whether it gets on would think that it hangs. */
const LONGEST_WAIT_MS = 1000;

/**
 * Keeps whoever reads at a pace: to be waited for with the bytes that were read so far, before more are read. The pace is not
 * waited for, and one that fails keeps nobody any more: a VM that is gone, or does not answer, has no requests to be spared.
 */
export function slowed(pace: Pace): (current: number) => Promise<void> {
  let dueMs = performance.now();
  let before = 0;
  let rate: number | undefined;
  let asking: 'yes' | 'no' | 'in vain' = 'no';
  const ask = async (current: number): Promise<void> => {
    asking = 'yes';
    try {
      rate = await pace(current);
      asking = 'no';
    } catch {
      rate = undefined;
      asking = 'in vain';
    }
  };
  return async (current) => {
    if (asking === 'no') void ask(current);
    // What was not read in time is not made up for: the disk had no time for it.
    dueMs = Math.max(performance.now(), dueMs + (rate === undefined ? 0 : (1000 * (current - before)) / rate));
    before = current;
    const leftMs = dueMs - performance.now();
    if (leftMs >= SHORTEST_WAIT_MS) await sleep(Math.min(leftMs, LONGEST_WAIT_MS));
  };
}
