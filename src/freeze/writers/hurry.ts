// Shares out the time that a process which is told to end has left for its writers: among those that are still to be
// released, so that each gets its turn. Without a hurry nothing is cut short.
import { monotonicMs } from '../../linux/clock.js';
import { TERM_GRACE_MS } from '../../linux/process-group.js';

/** A share is never shorter, however many writers there are. */
const SHORTEST_SHARE_MS = 100;

export class Hurry {
  readonly #underWay = new Map<AbortController, () => number>();
  #limitMs: number | undefined;
  #untilMs: number | undefined;

  get isOn(): boolean {
    return this.#limitMs !== undefined;
  }

  /** From now on there are `limitMs` for everything, counted from the first act. Only the first call counts. */
  begin(limitMs: number): void {
    if (this.isOn) return;
    this.#limitMs = limitMs;
    for (const [cut, waiting] of this.#underWay) {
      setTimeout(() => {
        cut.abort();
      }, this.#shareMs(waiting())).unref();
    }
  }

  /**
   * Acts, within its share if there is a hurry. `waiting`: how many are to act one after the other, this one included.
   * The signal is aborted when the share is over, should the hurry begin meanwhile, and with `signal`.
   */
  async within<T>(
    waiting: () => number,
    signal: AbortSignal | undefined,
    act: (limits: { readonly signal: AbortSignal; readonly budgetMs?: number }) => Promise<T>,
  ): Promise<T> {
    const cut = new AbortController();
    this.#underWay.set(cut, waiting);
    try {
      return await act({
        signal: signal === undefined ? cut.signal : AbortSignal.any([cut.signal, signal]),
        ...(this.isOn ? { budgetMs: this.#shareMs(waiting()) } : {}),
      });
    } finally {
      this.#underWay.delete(cut);
    }
  }

  #shareMs(waiting: number): number {
    this.#untilMs ??= monotonicMs() + (this.#limitMs ?? 0);
    const leftMs = (this.#untilMs - monotonicMs()) / Math.max(1, waiting);
    return Math.max(SHORTEST_SHARE_MS, leftMs - TERM_GRACE_MS);
  }
}
