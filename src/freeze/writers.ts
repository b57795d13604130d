// The writers of one session, phase by phase: who runs beside whom, and who must be released. Ranks ascend at freeze and
// descend at thaw; equal rank runs side by side; plain hooks have one rank together and run there one by one. What is
// run and what its end means: writer-phase.ts, writer-process.ts, resident-writer.ts.
import type { PhaseReport, WriterPhase, WriterReport, outcomes } from '../consistency.js';
import { describeError } from '../errors.js';
import { monotonicMs } from './clock.js';
import { ResidentWriter } from './resident-writer.js';
import { phaseLimitsMs } from './writer-description.js';
import type { Writer } from './writer-folders.js';
import { LeftOutput } from './writer-output.js';
import { phaseReport, readResult, runPhase, startResident, type PhaseContext, type Verdict } from './writer-phase.js';
import { eventless, type ProcessResult } from './writer-process.js';

export type SessionOutcome = (typeof outcomes)[number];

export interface WriterContext extends PhaseContext {
  /** Zero of the report's times, on CLOCK_MONOTONIC. */
  readonly zeroMs: number;
  readonly limitsMs?: Partial<Readonly<Record<WriterPhase, number>>>;
}

/** One writer of the session and what became of it. */
interface Run {
  readonly writer: Writer;
  readonly phases: PhaseReport[];
  state: 'taking-part' | 'failed' | 'not-applicable';
  /** Its freeze was started: it must be released. */
  started: boolean;
  frozen: boolean;
  /** Its `thaw` succeeded, or its process is gone and its hold with it. */
  released: boolean;
  /** How often its `verify` passed. */
  verified: number;
  reason: string | undefined;
  /** Of a resident writer, from prepare on; or how it could not be started. */
  resident: ResidentWriter | ProcessResult | undefined;
}

/** A writer whose freeze was started, at the end. */
export interface Release {
  readonly name: string;
  readonly path: string;
  readonly released: boolean;
  /** Why not, for people. */
  readonly reason?: string;
}

export class WriterSet {
  readonly #runs: Run[];
  readonly #context: WriterContext;
  readonly #left = new LeftOutput();

  constructor(writers: readonly Writer[], context: WriterContext) {
    this.#context = context;
    this.#runs = writers.map((writer) => ({
      writer,
      phases: [],
      state: 'taking-part',
      started: false,
      frozen: false,
      released: false,
      verified: 0,
      reason: undefined,
      resident: undefined,
    }));
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

  /** Required writers that failed so far, for people. */
  get requiredFailures(): readonly string[] {
    return this.#runs
      .filter(({ state, writer }) => state === 'failed' && writer.required)
      .map(({ writer, reason }) => `${writer.name}: ${reason ?? 'failed'}`);
  }

  /** Step 2: residents are started, and all that have the phase run it, side by side. */
  async prepare(budgetMs: number, signal: AbortSignal): Promise<void> {
    for (const run of this.#runs) {
      if (run.writer.kind !== 'resident' || signal.aborted) continue;
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

  /** Step 3. Stops at the first rank in which a required writer failed, if told to. */
  async freeze(remainingMs: () => number, signal: AbortSignal, stopAtFailure: boolean): Promise<void> {
    for (const rank of ranks(this.#runs)) {
      await byRank(
        this.#with('freeze').filter(({ writer }) => writer.rank === rank),
        async (run) => {
          if (signal.aborted || (stopAtFailure && this.requiredFailures.length > 0)) return;
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
      if (signal.aborted || (stopAtFailure && this.requiredFailures.length > 0)) return;
    }
  }

  /** The last act before the first FIFREEZE, and the first after the last FITHAW: all side by side. */
  async verify(budgetMs: number, signal?: AbortSignal): Promise<void> {
    await Promise.all(
      this.#with('verify').map(async (run) => {
        const verdict = await this.#phase(run, 'verify', { budgetMs, ...(signal === undefined ? {} : { signal }) });
        if (verdict.kind === 'done') run.verified++;
      }),
    );
  }

  /**
   * Step 7, `thaw` for every writer whose freeze was started. What fails is tried once more when all others are
   * released; `unreleased` names what still failed then.
   */
  async release(outcome: SessionOutcome): Promise<void> {
    // They hold nothing yet, and nobody waits for them.
    for (const run of this.#runs) if (!run.started && run.resident instanceof ResidentWriter) void run.resident.end();
    for (let tries = 0; tries < 2; tries++) {
      const held = this.#runs.filter((run) => run.started && !run.released).reverse();
      for (const rank of ranks(held).reverse()) {
        await byRank(
          held.filter(({ writer }) => writer.rank === rank),
          async (run) => {
            await this.#release(run, outcome);
          },
        );
      }
    }
  }

  /** The longest that `release` may take, in milliseconds. */
  get releaseLimitMs(): number {
    const limits = this.#runs.filter(({ started }) => started).map(({ writer }) => this.#limit(writer, 'thaw'));
    return 2 * limits.reduce((sum, limitMs) => sum + limitMs + END_LIMIT_MS, 0);
  }

  /** Writers whose freeze was started, in the order in which they were let go. */
  get releases(): readonly Release[] {
    const lastThaw = ({ phases }: Run): PhaseReport | undefined => phases.findLast(({ phase }) => phase === 'thaw');
    return this.#runs
      .filter(({ started }) => started)
      .sort((a, b) => (lastThaw(a)?.endMs ?? 0) - (lastThaw(b)?.endMs ?? 0))
      .map((run) => {
        const { name, path } = run.writer;
        if (run.released) return { name, path, released: true };
        const { text, exitCode, signal } = lastThaw(run) ?? {};
        const reason = text ?? `thaw failed (exit ${exitCode ?? signal ?? 'unknown'})`;
        return { name, path, released: false, reason };
      });
  }

  /** Writers whose `thaw` failed: their applications may still stand still. With the reason, for people. */
  get unreleased(): readonly string[] {
    return this.releases.flatMap(({ name, released, reason }) => (released ? [] : [`${name}: ${reason ?? 'unknown'}`]));
  }

  async #release(run: Run, outcome: SessionOutcome): Promise<void> {
    const verdict = await this.#phase(run, 'thaw', { outcome });
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
      await this.#phase(run, phase, { outcome });
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
    return this.#runs.map((run) => {
      const { name, path, kind, required, rank, description } = run.writer;
      return {
        name,
        path,
        kind,
        required,
        rank,
        ...(description?.guarantee === undefined ? {} : { guarantee: description.guarantee }),
        verdict: verdictOf(run, final),
        ...(run.reason === undefined ? {} : { reason: run.reason }),
        phases: [...run.phases],
      };
    });
  }

  #with(phase: WriterPhase): Run[] {
    return this.#runs.filter(({ state, writer }) => state === 'taking-part' && writer.phases.includes(phase));
  }

  #limit(writer: Writer, phase: WriterPhase): number {
    const own = writer.description?.timeout[phase];
    return own === undefined ? (this.#context.limitsMs?.[phase] ?? phaseLimitsMs[phase]) : own * 1000;
  }

  async #phase(run: Run, phase: WriterPhase, how: PhaseOptions): Promise<Verdict> {
    const { writer } = run;
    const own = this.#limit(writer, phase);
    const limitMs = Math.max(1, Math.min(own, how.budgetMs ?? own));
    const result = await this.#run(run, phase, limitMs, how);
    run.phases.push(phaseReport(phase, result, this.#context.zeroMs));
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

  async #run(run: Run, phase: WriterPhase, limitMs: number, { signal, outcome }: PhaseOptions): Promise<ProcessResult> {
    const { writer, resident } = run;
    if (writer.kind !== 'resident') {
      const onLost = (reason: string): void => {
        this.#lose(run, reason);
      };
      const options = { limitMs, left: this.#left, onLost };
      return await runPhase(writer, phase, this.#context, {
        ...options,
        ...(signal === undefined ? {} : { signal }),
        ...(outcome === undefined ? {} : { outcome }),
      });
    }
    if (resident instanceof ResidentWriter)
      return await resident.ask(outcome === undefined ? phase : `${phase} ${outcome}`, limitMs, signal);
    const now = monotonicMs();
    return resident ?? { ...eventless, startMs: now, endMs: now, fault: 'it was never started' };
  }

  // Between its phases, when nobody asks.
  #lose(run: Run, reason: string): void {
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

// Plain hooks one by one, all others at the same time as them.
async function byRank(runs: readonly Run[], act: (run: Run) => Promise<void>): Promise<void> {
  const plainInTurn = async (): Promise<void> => {
    for (const run of runs.filter(({ writer }) => writer.kind === 'plain')) await act(run);
  };
  await Promise.all([plainInTurn(), ...runs.filter(({ writer }) => writer.kind !== 'plain').map(act)]);
}

function ranks(runs: readonly Run[]): number[] {
  return [...new Set(runs.map(({ writer }) => writer.rank))].sort((a, b) => a - b);
}

function verdictOf(run: Run, final: boolean): WriterReport['verdict'] {
  if (run.state !== 'taking-part') return run.state;
  const { phases } = run.writer;
  const held = run.frozen || !phases.includes('freeze');
  return phases.includes('verify') && held && run.verified >= (final ? 2 : 1) ? 'verified' : 'claimed';
}
