// The writers of one session, phase by phase: who runs beside whom, what an exit code means, and who must be released.
// Ranks ascend at freeze and descend at thaw; equal rank runs side by side; plain hooks have one rank together and run
// there one by one. How a process is run and killed: writer-process.ts.
import type { PhaseReport, WriterPhase, WriterReport, outcomes } from '../consistency.js';
import { describeError } from '../errors.js';
import { monotonicMs } from './clock.js';
import type { SessionRecord } from './session-record.js';
import { phaseLimitsMs } from './writer-description.js';
import type { Writer } from './writer-folders.js';
import { runProcess, type ProcessResult } from './writer-process.js';

export type SessionOutcome = (typeof outcomes)[number];

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export interface WriterContext {
  readonly session: string;
  readonly leaseMs: number;
  /** All mount points of the filesystems of the set. */
  readonly mountpoints: readonly string[];
  readonly record: SessionRecord;
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
  /** Its `thaw` succeeded. */
  released: boolean;
  /** How often its `verify` passed. */
  verified: number;
  reason: string | undefined;
}

/** What the exit of a phase says (fsfreeze-hook.d/README.md, "Exit codes"). */
type Verdict =
  { readonly kind: 'done' | 'unsupported' | 'not-applicable' } | { readonly kind: 'failed'; readonly reason: string };

export class WriterSet {
  readonly #runs: Run[];
  readonly #context: WriterContext;

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
    }));
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

  /** Step 2: all that have the phase, side by side. */
  async prepare(budgetMs: number, signal: AbortSignal): Promise<void> {
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

  /** Writers whose `thaw` failed: their applications may still stand still. With the reason, for people. */
  get unreleased(): readonly string[] {
    return this.#runs
      .filter(({ started, released }) => started && !released)
      .map(({ writer, phases }) => {
        const last = phases.findLast(({ phase }) => phase === 'thaw');
        return `${writer.name}: ${last?.text ?? `thaw failed (exit ${last?.exitCode ?? last?.signal ?? 'unknown'})`}`;
      });
  }

  async #release(run: Run, outcome: SessionOutcome): Promise<void> {
    const verdict = await this.#phase(run, 'thaw', { outcome });
    run.released = verdict.kind !== 'failed';
    if (!run.released) return;
    try {
      this.#context.record.noteReleased(run.writer.path);
    } catch {
      // A successor then releases it again, which a writer must bear.
    }
  }

  /** After the release: `post` of a session that was frozen, `abort` of an attempt that was not. */
  async after(phase: 'post' | 'abort', outcome: SessionOutcome): Promise<void> {
    const runs = this.#runs.filter((run) => run.phases.length > 0 && run.writer.phases.includes(phase));
    await Promise.all(
      runs.map(async (run) => {
        await this.#phase(run, phase, { outcome });
      }),
    );
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
    const { result, report } = await runPhase(writer, phase, limitMs, this.#context, how);
    run.phases.push(report);
    const verdict = readExit(writer, phase, result, limitMs);
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
}

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

function readExit(writer: Writer, phase: WriterPhase, result: ProcessResult, limitMs: number): Verdict {
  const failed = (reason: string): Verdict => ({ kind: 'failed', reason });
  const because = result.text === undefined ? '' : `: ${result.text}`;
  if (result.unkillable) return failed(`still runs after SIGKILL${because}`);
  if (result.timedOut) return failed(`not done within ${Math.round(limitMs)} ms${because}`);
  if (result.aborted) return failed('ended with the attempt');
  if (result.signal !== undefined) return failed(`ended by ${result.signal}${because}`);
  const code = result.exitCode;
  if (code === 0) return { kind: 'done' };
  if (writer.kind === 'described' && code === 2) return { kind: 'unsupported' };
  if (writer.kind === 'described' && code === 3 && (phase === 'prepare' || phase === 'freeze'))
    return { kind: 'not-applicable' };
  if (code === undefined) return failed(result.text ?? 'cannot be started');
  const reserved = writer.kind === 'described' && code >= 4 && code <= 15 ? ' (reserved)' : '';
  return failed(`exit ${code}${reserved}${because}`);
}

/** Runs one phase of one writer with the environment and arguments its folder's style asks for. Never throws. */
export async function runPhase(
  writer: Pick<Writer, 'name' | 'path' | 'kind'> & { readonly folder: Pick<Writer['folder'], 'style'> },
  phase: WriterPhase,
  limitMs: number,
  context: WriterContext,
  { signal, outcome }: PhaseOptions,
): Promise<{ readonly result: ProcessResult; readonly report: PhaseReport }> {
  const withMountpoints = writer.kind === 'plain' && writer.folder.style === 'dragonsdawn';
  let scratch: string;
  try {
    scratch = context.record.scratch(writer.name);
  } catch (error) {
    const now = monotonicMs();
    const text = `no scratch directory: ${describeError(error)}`;
    const nothing = { startMs: now, endMs: now, timedOut: false, aborted: false, unkillable: false, text };
    return { result: nothing, report: phaseReport(phase, nothing, context.zeroMs) };
  }
  const result = await runProcess(
    {
      label: `${writer.name}.${phase}`,
      file: writer.path,
      args: [phase, ...(withMountpoints ? context.mountpoints : [])],
      env: {
        PATH,
        HOME: '/root',
        FSFREEZE_SESSION: context.session,
        FSFREEZE_PHASE: phase,
        FSFREEZE_LEASE_MS: String(Math.round(context.leaseMs)),
        // One on a line: a name with a newline cannot be told, and is left out.
        FSFREEZE_MOUNTPOINTS: context.mountpoints.filter((path) => !path.includes('\n')).join('\n'),
        FSFREEZE_OUTCOME: outcome ?? '',
        FSFREEZE_SCRATCH: scratch,
      },
      limitMs,
      outputDir: context.record.outputDir,
      onStart: (pid) => {
        context.record.noteProcess(writer.path, pid);
      },
    },
    signal,
  );
  return { result, report: phaseReport(phase, result, context.zeroMs) };
}

function phaseReport(phase: WriterPhase, result: ProcessResult, zeroMs: number): PhaseReport {
  const { exitCode, signal: killer, text } = result;
  return {
    phase,
    startMs: result.startMs - zeroMs,
    endMs: result.endMs - zeroMs,
    ...(exitCode === undefined ? {} : { exitCode }),
    ...(killer === undefined ? {} : { signal: killer }),
    timedOut: result.timedOut,
    ...(text === undefined ? {} : { text }),
  };
}
