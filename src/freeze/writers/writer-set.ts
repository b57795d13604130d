// The writers of one session, phase by phase: who runs beside whom, and who must be released. Ranks ascend at freeze and
// descend at thaw; equal rank runs side by side; plain hooks have one rank together and run there one by one. What is
// run and what its end means: phase.ts, process.ts, resident.ts.
import { defined } from '../../defined.js';
import type { WriterPhase, WriterReport } from '../../consistency.js';
import { describeError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import { Hurry } from './hurry.js';
import { ResidentWriter } from './resident.js';
import { phaseLimitsMs } from './description.js';
import type { Writer } from './folders.js';
import { LeftOutput } from './output.js';
import {
  phaseReport,
  readResult,
  runPhase,
  startResident,
  type PhaseContext,
  type SessionOutcome,
  type Verdict,
} from './phase.js';
import { noEvents, type ProcessResult } from './process.js';
import {
  addPhase,
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

export interface WriterContext extends PhaseContext {
  /** Zero of the report's times, on CLOCK_MONOTONIC. */
  readonly zeroMs: number;
  readonly limitsMs?: Partial<Readonly<Record<WriterPhase, number>>>;
  /** Of each phase of a plain hook; without it, `limitsMs`. */
  readonly plainHookLimitMs?: number;
  /** By path: writers that are not run, and why. They count as failed. */
  readonly leftOut?: ReadonlyMap<string, string>;
  /** The failure of this writer ends the attempt; without it, of none. */
  readonly vetoes?: (writer: Writer) => boolean;
}

export class WriterSet {
  readonly #runs: WriterRun[];
  readonly #context: WriterContext;
  readonly #left = new LeftOutput();
  readonly #hurry = new Hurry();

  constructor(writers: readonly Writer[], context: WriterContext) {
    this.#context = context;
    this.#runs = writers.map((writer) => {
      const reason = context.leftOut?.get(writer.path);
      return reason === undefined ? newRun(writer) : { ...newRun(writer), state: 'failed', reason };
    });
  }

  /** Those that a dead process had started to freeze, in the order of their start: there is only `release` for them. */
  static abandoned(writers: readonly Writer[], context: WriterContext): WriterSet {
    const set = new WriterSet(writers, context);
    for (const run of set.#runs) run.started = true;
    return set;
  }

  /** Some writer takes part: none has said yet that nothing of it runs here. */
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

  /** Step 2: residents are started, and all that have the phase run it, side by side. */
  async prepare(budgetMs: number, signal: AbortSignal): Promise<void> {
    for (const run of this.#runs) {
      if (run.writer.kind !== 'resident' || run.state === 'failed' || signal.aborted) continue;
      run.resident = startResident(run.writer, this.#context, (reason) => {
        this.#lose(run, reason);
      });
    }
    await Promise.all(
      this.#with('prepare').map(async (run) => {
        await this.#phase(run, 'prepare', { budgetMs, signal });
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
          // Noted first: should this process die now, its successor must release the writer.
          try {
            this.#context.record.noteStarted(run.writer, this.#limit(run.writer, 'thaw'));
          } catch (error) {
            run.state = 'failed';
            run.reason = `freeze: not started, its start cannot be noted: ${describeError(error)}`;
            return;
          }
          run.started = true;
          const verdict = await this.#phase(run, 'freeze', { budgetMs: remainingMs(), signal });
          run.frozen = verdict.kind === 'done';
        },
      );
      if (signal.aborted || this.vetoes.length > 0) return;
    }
  }

  /** The last act before the first FIFREEZE, and the first after the last FITHAW: all side by side. */
  async verify(budgetMs: number, signal?: AbortSignal): Promise<void> {
    await Promise.all(
      this.#with('verify').map(async (run) => {
        const verdict = await this.#phase(run, 'verify', { budgetMs, ...defined({ signal }) });
        if (verdict.kind === 'done') run.verified++;
      }),
    );
  }

  /**
   * Step 7, `thaw` for every writer whose freeze was started. What fails is tried once more when all others are
   * released, unless it hung or there is a hurry; `unreleased` names what still failed then.
   */
  async release(outcome: SessionOutcome): Promise<void> {
    // They hold nothing yet, and nobody waits for them.
    for (const run of this.#runs) if (!run.started && run.resident instanceof ResidentWriter) void run.resident.end();
    await this.#releaseAll(this.#held, outcome);
    const again = this.#held.filter((run) => lastThaw(run)?.timedOut !== true);
    await this.#releaseAll(again, outcome, () => !this.#hurry.isOn);
  }

  /** Long after: one more try for what still holds. `signal` ends one that is under way. */
  async retry(outcome: SessionOutcome, signal: AbortSignal): Promise<void> {
    await this.#releaseAll(this.#held, outcome, () => !signal.aborted, signal);
    this.#left.close();
  }

  async #releaseAll(
    runs: WriterRun[],
    outcome: SessionOutcome,
    goesOn = () => true,
    signal?: AbortSignal,
  ): Promise<void> {
    const held = [...runs].reverse();
    const untried = new Set(held);
    for (const rank of ranks(held).reverse()) {
      await sideBySide(
        held.filter(({ writer }) => writer.rank === rank),
        async (run) => {
          if (goesOn()) await this.#release(run, outcome, () => untried.size, signal);
          untried.delete(run);
        },
      );
    }
  }

  /**
   * From now on the release and what comes after it have this long together: each writer gets its first try within its
   * share, and none a second one. For a process that is told to end.
   */
  hurry(limitMs: number): void {
    this.#hurry.begin(limitMs);
  }

  /** Writers whose freeze was started and that have not let go. */
  get #held(): WriterRun[] {
    return this.#runs.filter((run) => run.started && !run.released);
  }

  /** Some writer may be holding. */
  get holds(): boolean {
    return this.#held.length > 0;
  }

  /** The longest that `release` may take, in milliseconds. */
  get releaseLimitMs(): number {
    const limits = this.#runs.filter(({ started }) => started).map(({ writer }) => this.#limit(writer, 'thaw'));
    return 2 * limits.reduce((sum, limitMs) => sum + limitMs + END_LIMIT_MS, 0);
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

  async #release(
    run: WriterRun,
    outcome: SessionOutcome,
    waiting: () => number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const verdict = await this.#hurry.within(waiting, signal, async (limits) => {
      return await this.#phase(run, 'thaw', { outcome, ...limits });
    });
    run.released = verdict.kind !== 'failed';
    if (run.resident instanceof ResidentWriter) {
      // One that says so has let go, and may end while the next one has its turn. Of any other its end is the proof.
      const ending = run.resident.end();
      if (!run.released) run.released = await ending;
    }
    if (!run.released) return;
    try {
      this.#context.record.noteReleased(run.writer.path);
    } catch {
      // A successor then releases it again, which a writer must bear.
    }
  }

  /**
   * After the release: `post` of a session that was frozen, `abort` of an attempt that was not. When it settles no
   * resident is left.
   */
  async after(phase: 'post' | 'abort', outcome: SessionOutcome): Promise<void> {
    const runs = this.#runs.filter((run) => run.phases.length > 0 && run.writer.phases.includes(phase));
    const phases = runs.map(async (run) => {
      await this.#hurry.within(
        () => 1,
        undefined,
        async (limits) => await this.#phase(run, phase, { outcome, ...limits }),
      );
    });
    const residents = this.#runs.map(async ({ resident }) => {
      if (!(resident instanceof ResidentWriter)) return;
      await resident.end();
      resident.close();
    });
    await Promise.all([...phases, ...residents]);
    this.#left.close();
  }

  /** `final`: after the second verification, without which nothing is verified any more. */
  reports(final: boolean): WriterReport[] {
    return this.#runs.map((run) => reportOf(run, final));
  }

  #with(phase: WriterPhase): WriterRun[] {
    return this.#runs.filter(({ state, writer }) => state === 'taking-part' && writer.phases.includes(phase));
  }

  #limit(writer: Writer, phase: WriterPhase): number {
    const { limitsMs, plainHookLimitMs } = this.#context;
    const own = writer.description?.timeout[phase];
    if (own !== undefined) return own * 1000;
    return (writer.kind === 'plain' ? plainHookLimitMs : undefined) ?? limitsMs?.[phase] ?? phaseLimitsMs[phase];
  }

  async #phase(run: WriterRun, phase: WriterPhase, how: PhaseOptions): Promise<Verdict> {
    const { writer } = run;
    const own = this.#limit(writer, phase);
    const limitMs = Math.max(1, Math.min(own, how.budgetMs ?? own));
    run.isBusy = true;
    const result = await this.#run(run, phase, limitMs, how);
    run.isBusy = false;
    addPhase(run, phaseReport(phase, result, this.#context.zeroMs));
    const verdict = readResult(writer, phase, result, limitMs);
    if (verdict.kind === 'failed') {
      // A failed post says nothing of what was held before.
      if (phase !== 'post' && phase !== 'abort') run.state = 'failed';
      run.reason ??= `${phase}: ${verdict.reason}`;
    } else if (verdict.kind === 'not-applicable') {
      run.state = 'not-applicable';
      if (result.text !== undefined) run.reason ??= result.text;
    }
    return verdict;
  }

  async #run(
    run: WriterRun,
    phase: WriterPhase,
    limitMs: number,
    { signal, outcome }: PhaseOptions,
  ): Promise<ProcessResult> {
    const { writer, resident } = run;
    if (writer.kind !== 'resident') {
      const onLost = (reason: string): void => {
        this.#lose(run, reason);
      };
      const options = { limitMs, left: this.#left, onLost };
      return await runPhase(writer, phase, this.#context, {
        ...options,
        ...defined({ signal, outcome }),
      });
    }
    if (resident instanceof ResidentWriter)
      return await resident.ask(outcome === undefined ? phase : `${phase} ${outcome}`, limitMs, signal);
    const now = monotonicMs();
    return resident ?? { ...noEvents, startMs: now, endMs: now, fault: 'it was never started' };
  }

  // Between its phases, when nobody asks.
  #lose(run: WriterRun, reason: string): void {
    if (run.state !== 'taking-part' || run.released) return;
    run.state = 'failed';
    run.reason ??= `${run.frozen ? 'lost its hold' : 'before its freeze'}: ${reason}`;
  }
}

/** For a phase that is past its limit to be ended by force, and a resident to let go. */
const END_LIMIT_MS = 3_000;

interface PhaseOptions {
  readonly budgetMs?: number;
  readonly signal?: AbortSignal;
  readonly outcome?: SessionOutcome;
}
