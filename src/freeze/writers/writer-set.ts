// Runs the writers of one session, phase by phase: who runs beside whom, and what all of them came to. Ranks ascend at
// freeze and descend at thaw; equal rank runs side by side; plain hooks have one rank together and run there one by
// one. How a phase runs: phase-runner.ts. How writers are let go: release.ts.
import { defined } from '../../defined.js';
import type { WriterPhase, WriterReport } from '../../consistency.js';
import { describeError } from '../../errors.js';
import type { Writer } from './folders.js';
import type { SessionOutcome } from './phase.js';
import { PhaseRunner, type PhaseRunnerContext } from './phase-runner.js';
import { WriterRelease } from './release.js';
import {
  failureOf,
  lastThaw,
  newRun,
  ranks,
  releaseOf,
  reportOf,
  sideBySide,
  type Release,
  type WriterRun,
} from './run.js';

export interface WriterContext extends PhaseRunnerContext {
  /** By path: writers that are not run, and why. They count as failed. */
  readonly leftOut?: ReadonlyMap<string, string>;
  /** The failure of this writer ends the attempt; without it, no writer's failure does. */
  readonly vetoes?: (writer: Writer) => boolean;
}

export class WriterSet {
  readonly #runs: readonly WriterRun[];
  readonly #context: WriterContext;
  readonly #phases: PhaseRunner;
  readonly #release: WriterRelease;

  constructor(writers: readonly Writer[], context: WriterContext) {
    this.#context = context;
    this.#runs = writers.map((writer) => {
      const reason = context.leftOut?.get(writer.path);
      return reason === undefined ? newRun(writer) : { ...newRun(writer), state: 'failed', reason };
    });
    this.#phases = new PhaseRunner(context);
    this.#release = new WriterRelease(this.#runs, this.#phases, context.record);
  }

  /** Writers that a dead process had started to freeze, in the order of their start: they can only be released. */
  static abandoned(writers: readonly Writer[], context: WriterContext): WriterSet {
    const set = new WriterSet(writers, context);
    for (const run of set.#runs) run.started = true;
    return set;
  }

  /** Some writer takes part: not all have said that nothing of theirs runs here. */
  get concerned(): boolean {
    return this.#runs.some(({ state }) => state !== 'not-applicable');
  }

  /** Writers that failed so far, for people. */
  get failures(): readonly string[] {
    return this.#failed.map(failureOf);
  }

  /** Those whose failure ends the attempt. */
  get vetoes(): readonly string[] {
    return this.#failed.filter(({ writer }) => this.#context.vetoes?.(writer) === true).map(failureOf);
  }

  get #failed(): readonly WriterRun[] {
    return this.#runs.filter(({ state }) => state === 'failed');
  }

  /** Some writer may be holding. */
  get holds(): boolean {
    return this.#release.held.length > 0;
  }

  /** The longest that `release` may take, in milliseconds. */
  get releaseLimitMs(): number {
    return this.#release.limitMs;
  }

  /** Writers whose freeze was started, in the order in which they were let go. */
  get releases(): readonly Release[] {
    return this.#runs
      .filter(({ started }) => started)
      .sort((a, b) => (lastThaw(a)?.endMs ?? 0) - (lastThaw(b)?.endMs ?? 0))
      .map(releaseOf);
  }

  /** Writers of which a phase is under way. */
  get busy(): readonly Writer[] {
    return this.#runs.filter(({ isBusy }) => isBusy).map(({ writer }) => writer);
  }

  /** Writers whose `thaw` failed: their applications may still stand still. With the reason, for people. */
  get unreleased(): readonly string[] {
    return this.releases.flatMap(({ name, released, reason }) => (released ? [] : [`${name}: ${reason ?? 'unknown'}`]));
  }

  /** Step 2: residents are started, and all writers that have the phase run it, side by side. */
  async prepare(budgetMs: number, signal: AbortSignal): Promise<void> {
    for (const run of this.#runs) {
      if (run.writer.kind !== 'resident' || run.state === 'failed' || signal.aborted) continue;
      this.#phases.startResident(run);
    }
    await Promise.all(
      this.#with('prepare').map(async (run) => {
        await this.#phases.phase(run, 'prepare', { budgetMs, signal });
      }),
    );
  }

  /** Step 3. Stops at the first writer whose failure ends the attempt. */
  async freeze(remainingMs: () => number, signal: AbortSignal): Promise<void> {
    for (const rank of ranks(this.#runs)) {
      await sideBySide(
        this.#with('freeze').filter(({ writer }) => writer.rank === rank),
        async (run) => {
          if (signal.aborted || this.vetoes.length > 0) return;
          if (!this.#noteStarted(run)) return;
          run.started = true;
          const result = await this.#phases.phase(run, 'freeze', { budgetMs: remainingMs(), signal });
          run.frozen = result.kind === 'done';
        },
      );
      if (signal.aborted || this.vetoes.length > 0) return;
    }
  }

  // Noted first: should this process die now, its successor must release the writer. False if it cannot be noted.
  #noteStarted(run: WriterRun): boolean {
    try {
      this.#context.record.noteStarted(run.writer, this.#phases.limitMs(run.writer, 'thaw'));
      return true;
    } catch (error) {
      run.state = 'failed';
      run.reason = `freeze: not started, its start cannot be noted: ${describeError(error)}`;
      return false;
    }
  }

  /** The last act before the first FIFREEZE, and the first after the last FITHAW: all side by side. */
  async verify(budgetMs: number, signal?: AbortSignal): Promise<void> {
    await Promise.all(
      this.#with('verify').map(async (run) => {
        const result = await this.#phases.phase(run, 'verify', { budgetMs, ...defined({ signal }) });
        if (result.kind === 'done') run.verified++;
      }),
    );
  }

  /**
   * From now on the release and what comes after it have this long together, shared out among the writers. For a
   * process that is told to end.
   */
  hurry(limitMs: number): void {
    this.#release.hurry(limitMs);
  }

  /** Step 7, `thaw` for every writer whose freeze was started; `unreleased` names what failed. */
  async release(outcome: SessionOutcome): Promise<void> {
    await this.#release.all(outcome);
  }

  /** Long after: one more try for what still holds. `signal` ends one that is under way. */
  async retry(outcome: SessionOutcome, signal: AbortSignal): Promise<void> {
    await this.#release.retry(outcome, signal);
  }

  /** After the release: `post` of a session that was frozen, `abort` of an attempt that was not. */
  async after(phase: 'post' | 'abort', outcome: SessionOutcome): Promise<void> {
    await this.#release.after(phase, outcome);
  }

  /** `final`: after the second verification, without which nothing is verified any more. */
  reports(final: boolean): WriterReport[] {
    return this.#runs.map((run) => reportOf(run, final));
  }

  #with(phase: WriterPhase): readonly WriterRun[] {
    return this.#runs.filter(({ state, writer }) => state === 'taking-part' && writer.phases.includes(phase));
  }
}
