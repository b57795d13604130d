// Lets the writers of a session go: `thaw` for each whose freeze was started, whatever became of it; then `post` or
// `abort`, and the end of the residents. Which writers there are, and the phases before: writer-set.ts.
import { Hurry } from './hurry.js';
import type { SessionOutcome } from './phase.js';
import type { PhaseRunner } from './phase-runner.js';
import type { SessionRecord } from './record.js';
import { ResidentWriter } from './resident.js';
import { lastThaw, ranks, sideBySide, type WriterRun } from './run.js';

/** For a phase that is past its limit to be ended by force, and a resident to let go. */
const END_LIMIT_MS = 3_000;

export class WriterRelease {
  readonly #runs: readonly WriterRun[];
  readonly #phases: PhaseRunner;
  readonly #record: SessionRecord;
  readonly #hurry = new Hurry();

  /** `runs`: in the order in which they are held. */
  constructor(runs: readonly WriterRun[], phases: PhaseRunner, record: SessionRecord) {
    this.#runs = runs;
    this.#phases = phases;
    this.#record = record;
  }

  /** Writers whose freeze was started and that have not let go. */
  get held(): readonly WriterRun[] {
    return this.#runs.filter((run) => run.started && !run.released);
  }

  /** The longest that `release` may take, in milliseconds. */
  get limitMs(): number {
    const limits = this.#runs
      .filter(({ started }) => started)
      .map(({ writer }) => this.#phases.limitMs(writer, 'thaw'));
    return 2 * limits.reduce((sum, limitMs) => sum + limitMs + END_LIMIT_MS, 0);
  }

  /**
   * From now on the release and what comes after it have this long together: each writer gets its first try within its
   * share, and none a second one. For a process that is told to end.
   */
  hurry(limitMs: number): void {
    this.#hurry.begin(limitMs);
  }

  /**
   * Releases all that are held. What fails is tried once more when all others are released, unless it hung or there is
   * a hurry.
   */
  async all(outcome: SessionOutcome): Promise<void> {
    // These hold nothing yet, and nobody waits for them.
    for (const run of this.#runs) if (!run.started && run.resident instanceof ResidentWriter) void run.resident.end();
    await this.#inTurn(this.held, outcome);
    const again = this.held.filter((run) => lastThaw(run)?.timedOut !== true);
    await this.#inTurn(again, outcome, () => !this.#hurry.isOn);
  }

  /** Long after: one more try for what still holds. `signal` ends one that is under way. */
  async retry(outcome: SessionOutcome, signal: AbortSignal): Promise<void> {
    await this.#inTurn(this.held, outcome, () => !signal.aborted, signal);
    this.#phases.close();
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
        async (limits) => await this.#phases.phase(run, phase, { outcome, ...limits }),
      );
    });
    const residents = this.#runs.map(async ({ resident }) => {
      if (!(resident instanceof ResidentWriter)) return;
      await resident.end();
      resident.close();
    });
    await Promise.all([...phases, ...residents]);
    this.#phases.close();
  }

  // The last one held is the first to go; ranks descend.
  async #inTurn(
    runs: readonly WriterRun[],
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
          if (goesOn()) await this.#one(run, outcome, () => untried.size, signal);
          untried.delete(run);
        },
      );
    }
  }

  async #one(
    run: WriterRun,
    outcome: SessionOutcome,
    waiting: () => number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const result = await this.#hurry.within(waiting, signal, async (limits) => {
      return await this.#phases.phase(run, 'thaw', { outcome, ...limits });
    });
    run.released = result.kind !== 'failed';
    if (run.resident instanceof ResidentWriter) {
      // One that says so has let go, and may end while the next one has its turn. For any other its end is the proof.
      const ending = run.resident.end();
      if (!run.released) run.released = await ending;
    }
    if (!run.released) return;
    try {
      this.#record.noteReleased(run.writer.path);
    } catch {
      // A successor then releases it again, which a writer must bear.
    }
  }
}
