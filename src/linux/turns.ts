// Does work that may be long (40,000 mounts, 1,000 disks) in turns: between two of them the event loop answers whoever
// asks. Such work is a generator that yields wherever it may be interrupted, at most a millisecond or two apart. Short
// work is done within the first turn, at once.
import { setImmediate } from 'node:timers/promises';

export type Work<T> = Generator<undefined, T, undefined>;

/** A fifth of what a client of the local socket may be kept waiting for the loop. */
const TURN_MS = 10;

/** Throws what the work throws. */
export async function inTurns<T>(work: Work<T>): Promise<T> {
  for (;;) {
    const endMs = performance.now() + TURN_MS;
    do {
      const step = work.next();
      if (step.done === true) return step.value;
    } while (performance.now() < endMs);
    await setImmediate();
  }
}

/** For work that is known to be short. Throws what it throws. */
export function atOnce<T>(work: Work<T>): T {
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
  }
}
