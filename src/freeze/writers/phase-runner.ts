// Runs one phase of one writer of a session: its limit, the question, and what the answer makes of the writer. How a
// writer is asked: peer.ts. Whose turn it is: writer-set.ts.
import type { WriterPhase } from '../../consistency.js';
import { phaseLimitsMs } from './description.js';
import type { Writer } from './folders.js';
import { OutputWatch } from './output.js';
import { peerFor, type PeerContext } from './peers.js';
import type { SessionOutcome } from './peer.js';
import { phaseReport, readResult, type PhaseResult } from './phase-result.js';
import { addPhase, newRun, type WriterRun } from './run.js';

export interface PhaseRunnerContext extends PeerContext {
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
  readonly #watch = new OutputWatch();

  constructor(context: PhaseRunnerContext) {
    this.#context = context;
  }

  newRun(writer: Writer): WriterRun {
    return newRun(writer, (onLost) => peerFor(writer, this.#context, this.#watch, onLost));
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
    const ended = await run.peer.ask(phase, how.outcome, limitMs, how.signal);
    run.isBusy = false;
    addPhase(run, phaseReport(phase, ended, this.#context.zeroMs));
    const result = readResult(writer, phase, ended, limitMs);
    if (result.kind === 'failed') {
      // A failed post or complete says nothing of what was held before.
      if (phase !== 'post' && phase !== 'abort' && phase !== 'complete') run.state = 'failed';
      run.reason ??= `${phase}: ${result.reason}`;
    } else if (result.kind === 'not-applicable') {
      run.state = 'not-applicable';
      if (ended.text !== undefined) run.reason ??= ended.text;
    }
    return result;
  }

  /** From now on nobody looks after what phases left running. */
  close(): void {
    this.#watch.close();
  }
}
