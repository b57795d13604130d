// Notes when each step of a cut began and ended.
import { monotonicMs, roundMs } from '../../linux/clock.js';
import type { Manifest } from '../sets/manifest.js';
import type { CreateStep, Marks } from '../sets/point-in-time.js';

/** Steps of a cut, in milliseconds since it began. */
export class StepTimer {
  readonly steps: Manifest['timings']['steps'] = [];
  readonly #zeroMs = monotonicMs();
  #startMs = 0;

  /** The step that began when the last one ended. */
  end(step: CreateStep): void {
    const endMs = roundMs(monotonicMs() - this.#zeroMs);
    this.steps.push({ step, startMs: this.#startMs, endMs });
    this.#startMs = endMs;
  }

  /** The steps between the marks. */
  marks(marks: Marks): void {
    const spans = [
      ['quiesce', marks.freezeRequestedMs, marks.freezeAnsweredMs],
      ['cut', marks.cutSentMs, marks.cutAnsweredMs],
      ['thaw', marks.thawRequestedMs, marks.thawAnsweredMs],
    ] as const;
    for (const [step, from, to] of spans) {
      if (from === undefined || to === undefined) continue;
      this.steps.push({ step, startMs: roundMs(from - this.#zeroMs), endMs: roundMs(to - this.#zeroMs) });
    }
    this.#startMs = roundMs(monotonicMs() - this.#zeroMs);
  }
}
