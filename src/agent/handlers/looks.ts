// Bounds looks into filesystems that may not answer: a dead disk, a process that serves a mount and hangs. Such a look
// takes one of the four threads that Node has for all files and never gives it back. A host that asks again and again
// would take them all.
import { withLimit } from '../../deadline.js';
import { DeadlineError } from '../../errors.js';

/** Looks at a time: one thread is always left for the rest of the agent. */
const AT_ONCE = 3;

interface Look {
  isLate: boolean;
  /** Resolves when the look ends, or is late. */
  readonly settled: Promise<void>;
}

export class Looks {
  readonly #limitMs: number;
  readonly #outstanding = new Map<string, Look>();

  /** @param limitMs milliseconds that one look is waited for */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /**
   * Runs `look`, at most one at a time at a place, and three in all; others wait for their turn. Throws a DeadlineError
   * when the look is late, and at once while an earlier look at this place is late and has not come back, or while
   * three anywhere are; and what `look` throws.
   */
  async at<T>(place: string, look: () => Promise<T>): Promise<T> {
    for (let before = this.#inTheWay(place); before !== undefined; before = this.#inTheWay(place)) await before;
    const work = look();
    const waited = withLimit(`a look at ${place}`, this.#limitMs, work);
    const settled = waited.then(
      () => undefined,
      () => {
        mine.isLate = true;
      },
    );
    const mine: Look = { isLate: false, settled };
    this.#outstanding.set(place, mine);
    const end = (): void => {
      this.#outstanding.delete(place);
    };
    void work.then(end, end);
    return await waited;
  }

  /** Resolves when it is worth asking again; undefined if a look at `place` may begin. Throws a DeadlineError. */
  #inTheWay(place: string): Promise<void> | undefined {
    const there = this.#outstanding.get(place);
    if (there === undefined && this.#outstanding.size < AT_ONCE) return undefined;
    const before = there === undefined ? [...this.#outstanding.values()] : [there];
    const inTime = before.filter(({ isLate }) => !isLate);
    if (inTime.length === 0) throw new DeadlineError(`a look at ${place}`, this.#limitMs);
    return Promise.race(inTime.map(({ settled }) => settled));
  }
}

/** Does `work` for each item, three at a time; the results in the order of the items. */
export async function threeAtATime<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const left = items.entries();
  const lane = async (): Promise<void> => {
    for (const [index, item] of left) results[index] = await work(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return results;
}
