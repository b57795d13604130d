// Stands for a resident writer that an agent which died had asked to freeze. It cannot be asked any more: its hold ends
// with its process, or `lingers` seconds later, and all there is to do is to see that they are over.
import { monotonicMs } from '../../linux/clock.js';
import { noEvents, type Answer, type Peer } from './peer.js';

export class LeftPeer implements Peer {
  readonly isGone = true;
  readonly #runs: () => boolean;
  readonly #lingersMs: number;
  /** When its process was first seen to be gone, on CLOCK_MONOTONIC. When it went is not known. */
  #goneMs: number | undefined;

  /** `runs`: whether its process is still there. */
  constructor(runs: () => boolean, lingersMs: number) {
    this.#runs = runs;
    this.#lingersMs = lingersMs;
  }

  begin(): void {}

  async ask(): Promise<Answer> {
    const startMs = monotonicMs();
    const fault = this.#whyHeld();
    const facts = fault === undefined ? { answer: 'ok' as const } : { fault };
    return await Promise.resolve({ ...noEvents, ...facts, startMs, endMs: monotonicMs() });
  }

  async end(): Promise<boolean> {
    return await Promise.resolve(this.#whyHeld() === undefined);
  }

  close(): void {}

  #whyHeld(): string | undefined {
    if (this.#goneMs === undefined && this.#runs()) return 'its process does not end';
    this.#goneMs ??= monotonicMs();
    const leftMs = this.#goneMs + this.#lingersMs - monotonicMs();
    return leftMs <= 0 ? undefined : `its hold may outlive its process, for ${Math.ceil(leftMs / 1000)} s more`;
  }
}
