// Bounds waiting: by a time limit, by a point in time, by a signal. All on the monotonic clock: the wall clock may jump
// as it likes. Nothing here ends the work that is waited for.
import { performance } from 'node:perf_hooks';
import { DeadlineError, type Outcome } from './errors.js';

/** A point on the monotonic clock. */
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

/** Timers that are cleared together, when nobody waits for them any more. */
export class Timer {
  readonly #timers: NodeJS.Timeout[] = [];

  async after<T>(ms: number, value: T): Promise<T> {
    return await new Promise((resolve) => {
      this.#timers.push(
        setTimeout(() => {
          resolve(value);
        }, ms),
      );
    });
  }

  clear(): void {
    for (const timer of this.#timers.splice(0)) clearTimeout(timer);
  }
}

/** Who waits for a signal: one listener for all of them, since Node warns of more than ten on one signal. */
const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `act` once, when the signal is aborted, however many wait for it. Not for one that is aborted already. Gives
 * what takes the wait back.
 */
export function onAbort(signal: AbortSignal | undefined, act: () => void): () => void {
  if (signal === undefined) return () => undefined;
  const all = waiting.get(signal) ?? listen(signal);
  all.add(act);
  return () => {
    all.delete(act);
  };
}

function listen(signal: AbortSignal): Set<() => void> {
  const all = new Set<() => void>();
  waiting.set(signal, all);
  signal.addEventListener(
    'abort',
    () => {
      for (const act of all) act();
      all.clear();
    },
    { once: true },
  );
  return all;
}

/** Waits for a signal to be aborted. `clear` is to be called afterwards: nobody waits any more. */
export class AbortWait {
  readonly aborted: Promise<'aborted'>;
  readonly clear: () => void;

  constructor(signal: AbortSignal | undefined) {
    let resolve: (value: 'aborted') => void = () => undefined;
    this.aborted = new Promise((settle) => {
      resolve = settle;
    });
    this.clear = onAbort(signal, () => {
      resolve('aborted');
    });
    if (signal?.aborted === true) resolve('aborted');
  }
}

/**
 * Waits for `work` until `signal` is aborted; then throws what `why` gives. The work itself is not ended, and its later
 * failure has no other listener.
 */
export async function unlessAborted<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  why: () => Error,
): Promise<T> {
  const wait = new AbortWait(signal);
  work.catch(() => undefined);
  try {
    const first = await Promise.race([work.then((value) => ({ value })), wait.aborted]);
    if (first === 'aborted') throw why();
    return first.value;
  } finally {
    wait.clear();
  }
}
