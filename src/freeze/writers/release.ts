// Lets the writers of a session go: `thaw` for each whose freeze was started, whatever became of it; then `post` or
// `abort`, and the end of those that lived through the session. Which writers there are, and the phases before:
// writer-set.ts.
import { setImmediate } from 'node:timers/promises';
import { Hurry } from './hurry.js';
import type { SessionOutcome } from './peer.js';
import type { PhaseRunner, SessionPhaseOptions } from './phase-runner.js';
import type { SessionRecord } from './record.js';
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
    for (const { started, peer } of this.#runs) if (!started) void peer.end();
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
   * After the release: `post` of a session that was frozen, `abort` of an attempt that was not. When it settles nothing
   * is left that lived through the session.
   */
  async after(phase: 'post' | 'abort', outcome: SessionOutcome): Promise<void> {
    // Applications run again: the requester gets its answer before processes are ended one after the other.
    await setImmediate();
    await Promise.all(
      this.#runs.map(async (run) => {
        const { peer, writer } = run;
        if (run.phases.length > 0 && writer.phases.includes(phase) && !peer.isGone)
          await this.#hurry.within(
            () => 1,
            undefined,
            async (limits) => await this.#phases.phase(run, phase, { outcome, ...limits }),
          );
        await peer.end();
        peer.close();
      }),
    );
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
        async (together) => {
          if (goesOn())
            await this.#hurry.within(
              () => untried.size,
              signal,
              async (limits) => {
                await Promise.all(
                  together.map(async (run) => {
                    await this.#one(run, { outcome, ...limits });
                    untried.delete(run);
                  }),
                );
              },
            );
          for (const run of together) untried.delete(run);
        },
      );
    }
  }

  async #one(run: WriterRun, how: SessionPhaseOptions): Promise<void> {
    const result = await this.#phases.phase(run, 'thaw', how);
    // One that says so has let go, and is ended when nobody waits any more.
    if (result.kind !== 'failed' || (await run.peer.end())) this.note(run);
  }

  /** It is known to have let go. */
  note(run: WriterRun): void {
    run.released = true;
    this.#record.noteReleased(run.writer.path);
  }
}
