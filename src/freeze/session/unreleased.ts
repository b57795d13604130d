// Writers whose `thaw` failed when their session ended: their applications may still stand still. They are told to let
// go again and again, with a growing pause, as long as this process lives. A process that is started anew tries too
// (recovery.ts). Nor did those let go that a process beside this one held when it died. A new session comes first: no writer is started while something is held.
import type { UnreleasedWriter } from '../../consistency.js';
import { describeError } from '../../errors.js';
import type { FreezeLog } from '../options.js';
import { monotonicMs } from '../../linux/clock.js';
import type { SessionRecord } from '../writers/record.js';
import type { SessionOutcome } from '../writers/peer.js';
import type { WriterSet } from '../writers/writer-set.js';

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/** Writers that a session left behind. */
export interface LeftWriters {
  readonly session: string;
  readonly outcome: SessionOutcome;
  readonly writers: WriterSet;
  readonly record: SessionRecord;
  /** Settles when nothing else of the session runs. Never rejects. */
  readonly settled: Promise<void>;
}

interface Entry extends LeftWriters {
  tries: number;
  pauseMs: number;
  nextMs: number;
}

export class UnreleasedWriters {
  readonly #log: FreezeLog;
  #entries: Entry[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** How many sessions are on. While there is one, nothing is tried. */
  #holds = 0;
  #stop = new AbortController();
  #trying: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(log: FreezeLog) {
    this.#log = log;
  }

  get list(): readonly UnreleasedWriter[] {
    const now = monotonicMs();
    return this.#entries.flatMap(({ session, writers, tries, nextMs }) =>
      writers.releases.flatMap(({ name, path, released, reason = 'unknown' }) =>
        released ? [] : [{ session, name, path, reason, tries, nextTryMs: Math.max(0, Math.round(nextMs - now)) }],
      ),
    );
  }

  /** Writers of this session are looked after. */
  has(session: string): boolean {
    return this.#entries.some((entry) => entry.session === session);
  }

  /** The first try is made at once: a later session may begin soon, and lay its hold over this one. */
  add(left: LeftWriters): void {
    this.#entries.push({ ...left, tries: 0, pauseMs: FIRST_PAUSE_MS, nextMs: monotonicMs() });
    this.#schedule();
  }

  /** Before a session: ends a try that is under way, within two seconds. Each call needs its resume(). Never throws. */
  async pause(): Promise<void> {
    this.#holds++;
    clearTimeout(this.#timer);
    this.#stop.abort();
    await this.#trying;
  }

  /**
   * After a session: the tries go on soon. A writer that has let go for the later session need not have let go for the
   * earlier one, of which a holder may still run.
   */
  resume(): void {
    this.#holds--;
    if (this.#holds > 0) return;
    for (const entry of this.#entries) entry.nextMs = Math.min(entry.nextMs, monotonicMs() + FIRST_PAUSE_MS);
    this.#schedule();
  }

  /** Tries no more. What was noted stays, for the next process. Never throws. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.pause();
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const [first] = [...this.#entries].sort((a, b) => a.nextMs - b.nextMs);
    if (first === undefined || this.#holds > 0 || this.#closed) return;
    this.#timer = setTimeout(
      () => {
        this.#stop = new AbortController();
        this.#trying = this.#try(first, this.#stop.signal);
        void this.#trying.then(() => {
          this.#schedule();
        });
      },
      Math.max(0, first.nextMs - monotonicMs()),
    ).unref();
  }

  // Never throws.
  async #try(entry: Entry, signal: AbortSignal): Promise<void> {
    await Promise.race([entry.settled, aborted(signal)]);
    try {
      if (!signal.aborted) await entry.writers.retry(entry.outcome, signal);
    } catch (error) {
      // No program could be started, or the notes could not be written. The next try may go better.
      this.#log.warn({ session: entry.session }, `writers cannot be released now: ${describeError(error)}`);
    }
    // A try that a new session ended does not count.
    const wasTried = !this.#stop.signal.aborted;
    if (wasTried) {
      entry.tries++;
      entry.pauseMs = Math.min(2 * entry.pauseMs, LONGEST_PAUSE_MS);
    }
    entry.nextMs = monotonicMs() + entry.pauseMs;
    const { session, tries } = entry;
    const unreleased = entry.writers.unreleased;
    if (unreleased.length > 0 && wasTried)
      this.#log.warn({ session, tries, unreleased }, `still not released: ${unreleased.join('; ')}`);
    this.#sweep();
  }

  #sweep(): void {
    const done = this.#entries.filter(({ writers }) => writers.unreleased.length === 0);
    this.#entries = this.#entries.filter((entry) => !done.includes(entry));
    for (const { session, record, tries } of done) {
      this.#log.info({ session, tries }, 'all writers are released now');
      try {
        record.remove();
      } catch (error) {
        this.#log.warn({ session }, `its notes cannot be removed: ${describeError(error)}`);
      }
    }
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => {
      resolve();
    });
  });
}
