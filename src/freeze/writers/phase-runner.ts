// Runs one phase of one writer of a session: its limit, the program that is started or the resident that is asked, and
// what the result makes of the writer. How a program is started: phase.ts. Whose turn it is: writer-set.ts.
import { defined } from '../../defined.js';
import type { WriterPhase } from '../../consistency.js';
import { monotonicMs } from '../../linux/clock.js';
import { phaseLimitsMs } from './description.js';
import type { Writer } from './folders.js';
import { LeftOutput } from './output.js';
import { runPhase, startResident, type PhaseContext, type SessionOutcome } from './phase.js';
import { phaseReport, readResult, type PhaseResult } from './phase-result.js';
import { noEvents, type ProcessResult } from './process.js';
import { ResidentWriter } from './resident.js';
import { addPhase, type WriterRun } from './run.js';

export interface PhaseRunnerContext extends PhaseContext {
  /** Zero of the report's times, on CLOCK_MONOTONIC. */
  readonly zeroMs: number;
  readonly limitsMs?: Partial<Readonly<Record<WriterPhase, number>>>;
  /** The limit of each phase of a plain hook; without it, `limitsMs`. */
  readonly plainHookLimitMs?: number;
}

export interface SessionPhaseOptions {
  /** The phase has no more than this, however long its limit is. */
  readonly budgetMs?: number;
  /** Ends the phase when it is aborted. */
  readonly signal?: AbortSignal;
  /** How the session came out, for the phases that are told. */
  readonly outcome?: SessionOutcome;
}

export class PhaseRunner {
  readonly #context: PhaseRunnerContext;
  readonly #left = new LeftOutput();

  constructor(context: PhaseRunnerContext) {
    this.#context = context;
  }

  /** Never throws: a resident that could not be started says so when it is asked. */
  startResident(run: WriterRun): void {
    run.resident = startResident(run.writer, this.#context, (reason) => {
      lose(run, reason);
    });
  }

  /** Milliseconds that a phase of this writer may take: its own word, the settings', ours. */
  limitMs(writer: Writer, phase: WriterPhase): number {
    const { limitsMs, plainHookLimitMs } = this.#context;
    const own = writer.description?.timeout[phase];
    if (own !== undefined) return own * 1000;
    return (writer.kind === 'plain' ? plainHookLimitMs : undefined) ?? limitsMs?.[phase] ?? phaseLimitsMs[phase];
  }

  /** Runs the phase, and notes in `run` what came of it. */
  async phase(run: WriterRun, phase: WriterPhase, how: SessionPhaseOptions): Promise<PhaseResult> {
    const { writer } = run;
    const own = this.limitMs(writer, phase);
    const limitMs = Math.max(1, Math.min(own, how.budgetMs ?? own));
    run.isBusy = true;
    const ended = await this.#run(run, phase, limitMs, how);
    run.isBusy = false;
    addPhase(run, phaseReport(phase, ended, this.#context.zeroMs));
    const result = readResult(writer, phase, ended, limitMs);
    if (result.kind === 'failed') {
      // A failed post says nothing of what was held before.
      if (phase !== 'post' && phase !== 'abort') run.state = 'failed';
      run.reason ??= `${phase}: ${result.reason}`;
    } else if (result.kind === 'not-applicable') {
      run.state = 'not-applicable';
      if (ended.text !== undefined) run.reason ??= ended.text;
    }
    return result;
  }

  /** From now on nobody looks after what phases left running. */
  close(): void {
    this.#left.close();
  }

  async #run(
    run: WriterRun,
    phase: WriterPhase,
    limitMs: number,
    { signal, outcome }: SessionPhaseOptions,
  ): Promise<ProcessResult> {
    const { writer, resident } = run;
    if (writer.kind !== 'resident') {
      const onLost = (reason: string): void => {
        lose(run, reason);
      };
      const options = { limitMs, left: this.#left, onLost, ...defined({ signal, outcome }) };
      return await runPhase(writer, phase, this.#context, options);
    }
    if (resident instanceof ResidentWriter)
      return await resident.ask(outcome === undefined ? phase : `${phase} ${outcome}`, limitMs, signal);
    const now = monotonicMs();
    return resident ?? { ...noEvents, startMs: now, endMs: now, fault: 'it was never started' };
  }
}

// Something went wrong between its phases, when nobody asks.
function lose(run: WriterRun, reason: string): void {
  if (run.state !== 'taking-part' || run.released) return;
  run.state = 'failed';
  run.reason ??= `${run.frozen ? 'lost its hold' : 'before its freeze'}: ${reason}`;
}
