// bridge-complete: tells the writers of a session that is over what became of the cut, once. One session at a time, and
// none while the guest is held or about to be: a session that comes meanwhile waits (waiting-for-post.ts). What is known
// of the session: kept-session.ts.
import type { CompleteOutcome, Completion } from '../../consistency.js';
import { describeError, QuiesceError, StateError } from '../../errors.js';
import type { Settings } from '../settings.js';
import type { WriterSet } from '../writers/writer-set.js';
import type { KeptSession } from './kept-session.js';
import type { KeptSessions } from './kept-sessions.js';
import type { BusyWriters, Predecessor } from './waiting-for-post.js';

interface Running {
  readonly answer: Promise<Completion>;
  writers?: WriterSet;
}

export interface CompletionGates {
  /** Settles, never rejects, when no `post` runs any more. */
  readonly settled: Promise<void>;
  /**
   * Called before the writers are started; what it gives is called when they are over. Rejects with a StateError if they
   * must not be started now: a session is under way that does not wait for this.
   */
  readonly enter: () => Promise<() => void>;
}

export class Completions implements Predecessor {
  readonly #settings: Settings;
  readonly #kept: KeptSessions;
  readonly #running = new Map<string, Running>();
  readonly #stop = new AbortController();
  /** Settles when all that were asked for so far are over. Never rejects. */
  #settled: Promise<void> = Promise.resolve();

  constructor(settings: Settings, kept: KeptSessions) {
    this.#settings = settings;
    this.#kept = kept;
  }

  get id(): string {
    return this.running[0] ?? '';
  }

  get running(): readonly string[] {
    return [...this.#running.keys()];
  }

  get settled(): Promise<void> {
    return this.#settled;
  }

  get busy(): BusyWriters {
    return [...this.#running].flatMap(([session, { writers }]) =>
      (writers?.busy ?? []).map((writer) => ({ writer, session, phase: 'complete' as const })),
    );
  }

  /**
   * The answer, which is the same whoever asks again. Throws a QuiesceError for a session that is unknown or forgotten,
   * and what `enter` does; then nobody was told, and it may be asked for again.
   */
  async complete(session: string, outcome: CompleteOutcome, gates: CompletionGates): Promise<Completion> {
    const before = this.#running.get(session);
    if (before !== undefined) return await before.answer;
    const running: Running = { answer: this.#inTurn(session, outcome, gates, this.#settled) };
    this.#running.set(session, running);
    const over = (): void => {
      this.#running.delete(session);
    };
    this.#settled = running.answer.then(over, over);
    return await running.answer;
  }

  /** Ends what runs: it is not answered, and may be asked for again when the agent was started anew. Never throws. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#settled;
  }

  async #inTurn(
    session: string,
    outcome: CompleteOutcome,
    { settled, enter }: CompletionGates,
    before: Promise<void>,
  ): Promise<Completion> {
    await settled;
    await before;
    const kept = this.#kept.find(session);
    if (kept === undefined)
      throw new QuiesceError(
        'E_SESSION',
        `no session '${session}' to complete: expected one that was held, of the last 16 and of the last 24 hours`,
      );
    if (kept.completion !== undefined) return kept.completion;
    await kept.endLeft();
    const leave = await enter();
    try {
      return await this.#run(kept, outcome);
    } finally {
      leave();
    }
  }

  async #run(kept: KeptSession, outcome: CompleteOutcome): Promise<Completion> {
    const { session } = kept.head;
    const writers = kept.writerSet(this.#settings);
    const running = this.#running.get(session);
    if (running !== undefined) running.writers = writers;
    const results = await writers.complete(({ path }) => kept.toldTo(path, outcome), this.#stop.signal);
    if (this.#stop.signal.aborted) throw new StateError('bridge-complete', 'shutting down', ['idle']);
    const completion: Completion = {
      session,
      outcome,
      writers: results.map(({ writer: { name, path }, result, durationMs }) => ({
        name,
        path,
        told: kept.toldTo(path, outcome),
        result: result.kind === 'done' || result.kind === 'unsupported' ? result.kind : 'failed',
        ...(result.kind === 'failed' ? { reason: result.reason } : {}),
        durationMs,
      })),
    };
    const { log } = this.#settings;
    try {
      kept.complete(completion);
    } catch (error) {
      // An agent that is started anew would run the phase again, which a writer must bear.
      log.warn({ session }, `the answer of bridge-complete is not noted: ${describeError(error)}`);
    }
    const failed = completion.writers.filter(({ result }) => result === 'failed');
    if (failed.length > 0)
      log.warn({ session, outcome, failed }, 'the session is complete, but for writers that failed');
    else log.info({ session, outcome }, 'the session is complete');
    return completion;
  }
}
