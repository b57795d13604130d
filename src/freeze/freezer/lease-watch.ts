// Our own watch over a session's lease, beside the freezer's: a freezer that is stopped thaws nothing, and where
// nothing is frozen the lease is kept here alone. What is done when the lease has ended: hold.ts.
import { monotonicMs } from '../../linux/clock.js';

/**
 * A freezer that says nothing this long after the lease ended is dead or stopped: it is killed then, and what it froze
 * is to take writes within a second of the lease's end.
 */
const SILENCE_MS = 250;

/** How a hold ended that nobody ended. */
export interface HoldEnd {
  readonly outcome: 'expired' | 'broken';
  readonly error: string;
}

export class LeaseWatch {
  readonly #onEnd: (end: HoldEnd) => void;
  #armed = false;
  #firstMs = 0;
  #deadlineMs: number | undefined;
  #criticalUntilMs = 0;
  #expired = false;
  #silent = false;
  #timer: NodeJS.Timeout | undefined;
  /** The thaw was told: the lease is watched no more, whatever answers still come. */
  #over = false;

  /** `onEnd` may be called more than once, and by an answer that comes after stop(): then nothing is left to end. */
  constructor(onEnd: (end: HoldEnd) => void) {
    this.#onEnd = onEnd;
  }

  /** FIFREEZE may have been called: from now on the freezer keeps the lease too. */
  get armed(): boolean {
    return this.#armed;
  }

  /** The freezer said nothing when the lease had ended. */
  get silent(): boolean {
    return this.#silent;
  }

  /** Milliseconds until the lease ends; 0 while there is none. */
  get remainingMs(): number {
    return this.#deadlineMs === undefined ? 0 : Math.max(0, this.#deadlineMs - monotonicMs());
  }

  /** When the lease began, on CLOCK_MONOTONIC. */
  get firstMs(): number {
    return this.#firstMs;
  }

  /**
   * Just before the freezer is told to freeze: its answer names the true deadline, which is some milliseconds later.
   */
  arm(leaseMs: number): void {
    this.#armed = true;
    this.#deadlineMs = monotonicMs() + leaseMs;
    this.#watch();
  }

  begin(firstMs: number, deadlineMs: number): void {
    this.#firstMs = firstMs;
    this.#deadlineMs = deadlineMs;
    this.#watch();
  }

  renew(deadlineMs: number): void {
    this.#deadlineMs = deadlineMs;
    this.#watch();
  }

  /** A critical section began, for `boundMs` at most, or ended. An expiry that waited for its end is told now. */
  critical(on: boolean, boundMs: number): void {
    this.#criticalUntilMs = on ? monotonicMs() + boundMs : 0;
    if (!on && this.#expired) this.#onEnd(this.expiry());
    else this.#watch();
  }

  /** The freezer said that the lease ended. */
  expired(): void {
    this.#expired = true;
    // To thaw now would tell the freezer that the critical section is over.
    if (monotonicMs() < this.#criticalUntilMs) this.#watch();
    else this.#onEnd(this.expiry());
  }

  expiry(): HoldEnd {
    const seconds = Math.round((monotonicMs() - this.#firstMs) / 1000);
    const error = `thawed after ${seconds} s, before the requester asked: the snapshot is not consistent`;
    return { outcome: 'expired', error };
  }

  stop(): void {
    this.#over = true;
    clearTimeout(this.#timer);
  }

  #watch(): void {
    clearTimeout(this.#timer);
    if (this.#deadlineMs === undefined || this.#over) return;
    // A freezer that said that the lease ended is not silent. The end of the critical section is waited for then, and
    // not a moment longer: the freezer kills a holder that does not let go within a second.
    const graceMs = this.#armed && !this.#expired ? SILENCE_MS : 0;
    const fromMs = Math.max(this.#deadlineMs, this.#criticalUntilMs) + graceMs;
    const timer = setTimeout(
      () => {
        // What the freezer said while this process had no turn lies in the socket, and is read before an immediate
        // runs.
        setImmediate(() => {
          if (this.#timer === timer && !this.#over) this.#fire();
        });
      },
      Math.max(0, fromMs - monotonicMs()),
    );
    this.#timer = timer;
  }

  #fire(): void {
    if (this.#expired || !this.#armed) {
      this.#onEnd(this.expiry());
      return;
    }
    this.#silent = true;
    this.#onEnd({ outcome: 'broken', error: 'the freezer was silent past the lease, and was killed' });
  }
}
