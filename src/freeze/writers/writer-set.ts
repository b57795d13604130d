// Runs the writers of one session, phase by phase: who runs beside whom, and what all of them came to. Ranks ascend at
// freeze and descend at thaw; equal rank runs side by side; plain hooks have one rank together and run there one by
// one. How a phase runs: phase-runner.ts. How writers are let go: release.ts.
import { defined } from '../../defined.js';
import type { Artefact, CompleteOutcome, WriterPhase, WriterReport } from '../../consistency.js';
import { describeError } from '../../errors.js';
import { processNames } from '../../linux/process-names.js';
import { readArtefacts } from './artefacts.js';
import { accompanies, type Writer } from './folders.js';
import type { SessionOutcome } from './peer.js';
import type { PhaseResult } from './phase-result.js';
import { PhaseRunner, type PhaseRunnerContext } from './phase-runner.js';
import { WriterRelease } from './release.js';
import { failureOf, lastThaw, ranks, releaseOf, reportOf, sideBySide, type Release, type WriterRun } from './run.js';

export interface WriterContext extends PhaseRunnerContext {
  /** By path: writers that are not run, and why. They count as failed. */
  readonly leftOut?: ReadonlyMap<string, string>;
  /** The failure of this writer ends the attempt; without it, no writer's failure does. */
  readonly vetoes?: (writer: Writer) => boolean;
}

/** What became of a writer in the phase `complete`. */
export interface CompletedWriter {
  readonly writer: Writer;
  readonly result: PhaseResult;
  readonly durationMs: number;
}

export class WriterSet {
  readonly #runs: readonly WriterRun[];
  readonly #context: WriterContext;
  readonly #phases: PhaseRunner;
  readonly #release: WriterRelease;

  constructor(writers: readonly Writer[], context: WriterContext) {
    this.#context = context;
    this.#phases = new PhaseRunner(context);
    this.#runs = writers.map((writer) => {
      const run = this.#phases.newRun(writer);
      run.reason = context.leftOut?.get(writer.path);
      if (run.reason !== undefined) run.state = 'failed';
      return run;
    });
    this.#release = new WriterRelease(this.#runs, this.#phases, context.record);
  }

  /** Writers that a dead process had started to freeze, in the order of their start: they can only be released. */
  static abandoned(
    writers: readonly Writer[],
    context: WriterContext & Required<Pick<WriterContext, 'leftRuns'>>,
  ): WriterSet {
    const set = new WriterSet(writers, context);
    for (const run of set.#runs) run.started = true;
    return set;
  }

  /** Some writer takes part: not all have said that nothing of theirs runs here. */
  get concerned(): boolean {
    return this.#runs.some(takesPart);
  }

  /** The same of one that speaks for an application. */
  get speaks(): boolean {
    return this.#runs.some((run) => takesPart(run) && !accompanies(run.writer));
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
    return this.#release.held.map(releaseOf).map(({ name, reason }) => `${name}: ${reason ?? 'unknown'}`);
  }

  /**
   * Step 2: those whose application runs here take part; those that live through the session are started, and all that
   * have the phase run it, side by side.
   */
  async prepare(budgetMs: number, signal: AbortSignal): Promise<void> {
    this.#passOverAbsent();
    await Promise.all(
      this.#with('prepare').map(async (run) => {
        // The first ones are at work while the others are started.
        if (!signal.aborted) run.peer.begin();
        await this.#phases.phase(run, 'prepare', { budgetMs, signal });
      }),
    );
  }

  // A guest has few of the applications that there are writers for: those of the others are not even started.
  #passOverAbsent(): void {
    const named = this.#runs.filter(({ state, writer }) => {
      return state === 'taking-part' && writer.description?.processes !== undefined;
    });
    if (named.length === 0) return;
    const running = processNames();
    for (const run of named) {
      const { processes = [] } = run.writer.description ?? {};
      if (processes.some((name) => running.has(name))) continue;
      run.state = 'not-applicable';
      run.reason = `no process ${processes.join(' or ')} runs`;
    }
  }

  /** Step 3. Stops at the first writer whose failure ends the attempt. */
  async freeze(remainingMs: () => number, signal: AbortSignal): Promise<void> {
    const goesOn = (): boolean => !signal.aborted && this.vetoes.length === 0;
    for (const rank of ranks(this.#runs)) {
      const runs = this.#with('freeze').filter(({ writer }) => writer.rank === rank);
      await sideBySide(runs, async (together) => {
        if (!goesOn() || !this.#noteStarted(together)) return;
        await Promise.all(
          together.map(async (run) => {
            const result = await this.#phases.phase(run, 'freeze', { budgetMs: remainingMs(), signal });
            run.frozen = result.kind === 'done';
            // One that has ended so holds nothing, and nobody is there to be told: it must not count as failed in thaw.
            if (result.kind === 'not-applicable' && run.peer.isGone) this.#release.note(run);
          }),
        );
      });
      if (!goesOn()) return;
    }
  }

  // Noted first: should this process die now, its successor must release them. False if it cannot be noted.
  #noteStarted(together: readonly WriterRun[]): boolean {
    const list = together.map(({ writer }) => ({ writer, limitMs: this.#phases.limitMs(writer, 'thaw') }));
    try {
      this.#context.record.noteStarted(list);
    } catch (error) {
      for (const run of together) {
        run.state = 'failed';
        run.reason = `freeze: not started, its start cannot be noted: ${describeError(error)}`;
      }
      return false;
    }
    for (const run of together) run.started = true;
    return true;
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

  /** Nobody looks any more after what phases left running. For who calls neither after() nor retry(). */
  close(): void {
    this.#phases.close();
  }

  /** After the release: `post` of a session that was frozen, `abort` of an attempt that was not. */
  async after(phase: 'post' | 'abort', outcome: SessionOutcome): Promise<void> {
    await this.#release.after(phase, outcome);
  }

  /**
   * Writers that took part and have the phase `complete`. Not those that still hold: they need their scratch to let go,
   * and are told nothing meanwhile.
   */
  get completing(): readonly { readonly writer: Writer; readonly failed: boolean }[] {
    const held = this.#release.held;
    return this.#runs
      .filter((run) => takesPart(run) && run.phases.length > 0 && !held.includes(run))
      .filter(({ writer }) => writer.phases.includes('complete'))
      .map(({ writer, state }) => ({ writer, failed: state === 'failed' }));
  }

  /** The phase `complete`, side by side. `told`: the outcome that a writer is told. `signal` ends it. */
  async complete(told: (writer: Writer) => CompleteOutcome, signal: AbortSignal): Promise<readonly CompletedWriter[]> {
    const completed = this.#with('complete').map(async (run) => {
      const { writer } = run;
      const result = await this.#phases.phase(run, 'complete', { outcome: told(writer), signal });
      const { startMs, endMs } = run.phases.at(-1) ?? { startMs: 0, endMs: 0 };
      return { writer, result, durationMs: endMs - startMs };
    });
    const all = await Promise.all(completed);
    this.close();
    return all;
  }

  /**
   * Of those that speak for an application. `final`: after the second verification, without which nothing is verified
   * any more.
   */
  reports(final: boolean): WriterReport[] {
    return this.#runs.filter(({ writer }) => !accompanies(writer)).map((run) => reportOf(run, final));
  }

  /** The same of those that only accompany. */
  accompanying(final: boolean): WriterReport[] {
    return this.#runs.filter(({ writer }) => accompanies(writer)).map((run) => reportOf(run, final));
  }

  /** What writers have left for whoever keeps the snapshot. For when nothing is held any more. Never throws. */
  artefacts(): Artefact[] {
    return readArtefacts(
      this.#runs.map(({ writer: { name } }) => ({ name, dir: this.#context.record.scratchPath(name) })),
    );
  }

  #with(phase: WriterPhase): readonly WriterRun[] {
    return this.#runs.filter(({ state, writer }) => state === 'taking-part' && writer.phases.includes(phase));
  }
}

function takesPart({ state }: WriterRun): boolean {
  return state !== 'not-applicable';
}
