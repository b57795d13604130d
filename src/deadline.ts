// Time limits. A Deadline is a point on the monotonic clock (the host's wall clock may jump as it likes).
import { performance } from 'node:perf_hooks';
import { DeadlineError, type Outcome } from './errors.js';

export class Deadline {
  readonly limitMs: number;
  readonly #end: number;

  /** @param limitMs milliseconds from now */
  constructor(limitMs: number) {
    this.limitMs = limitMs;
    this.#end = performance.now() + limitMs;
  }

  /** Milliseconds left, never below 0. */
  get remainingMs(): number {
    return Math.max(0, this.#end - performance.now());
  }

  get passed(): boolean {
    return this.remainingMs === 0;
  }
}

/**
 * Waits for `work`, at most `limitMs`. Throws a DeadlineError that names `what`. The work itself is not ended: give it
 * a signal if it can be.
 */
export async function withLimit<T>(
  what: string,
  limitMs: number,
  work: Promise<T>,
  outcome: Outcome = 'none',
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new DeadlineError(what, limitMs, { outcome }));
    }, limitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
