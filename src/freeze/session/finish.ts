// Steps 6 to 8 of the freeze path (../README.md), wherever the session was when it ended: thaw, release of the writers,
// report; then `post`, and a thaw that is confirmed late. How it came out: ending.ts.
import type { FreezeReport } from '../../consistency.js';
import { describeError } from '../../errors.js';
import { untilThawed } from '../freezer/until-thawed.js';
import type { SessionRecord } from '../writers/record.js';
import type { Ending } from './ending.js';
import type { EndedSession } from './kept-session.js';
import type { Progress } from './progress.js';

export class Finish {
  /** Settles, never rejects, when the end is over: thawed and released, or known not to be. */
  readonly ended: Promise<FreezeReport>;
  /** Settles, never rejects, when it has ended and everything is known to be thawed. */
  readonly thawed: Promise<FreezeReport>;
  readonly #progress: Progress;
  readonly #keep: (ended: EndedSession) => void;
  #final: FreezeReport | undefined;
  #running: Promise<FreezeReport> | undefined;
  #after: Promise<void> = Promise.resolve();
  #resolveEnded: (report: FreezeReport) => void = () => undefined;
  #resolveThawed: (report: FreezeReport) => void = () => undefined;

  /** `keep`: called when a session that was held is over, before its record is removed. Never throws. */
  constructor(progress: Progress, keep: (ended: EndedSession) => void) {
    this.#progress = progress;
    this.#keep = keep;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.thawed = new Promise((resolve) => {
      this.#resolveThawed = resolve;
    });
  }

  /** The final report, and what is known so far while there is none. */
  get report(): FreezeReport {
    return this.#final ?? this.#progress.findings.report(false);
  }

  /** Settles, never rejects, when `post` or `abort` of the writers is done. */
  get after(): Promise<void> {
    return this.#after;
  }

  /** Ends the session, once: whoever comes later gets the same report. Never throws. */
  async run(ending: Ending): Promise<FreezeReport> {
    this.#running ??= this.#steps(ending);
    return await this.#running;
  }

  // Never throws: what goes wrong in it becomes part of the report, and `unconfirmed`.
  async #steps(ending: Ending): Promise<FreezeReport> {
    const { settings, clock, outcome, findings } = this.#progress;
    const { hold, filesystems, writers, record } = this.#progress.acquired;
    this.#progress.to('thawing');
    this.#progress.stop();
    outcome.begin(ending);
    const armed = hold?.armed === true && filesystems !== undefined;
    if (armed) {
      clock.begin('thaw');
      await outcome.thaw(hold, filesystems);
    }
    const isThawed = filesystems === undefined || outcome.thawed(filesystems);
    const keeps = isThawed && writers?.concerned === true;
    if (keeps) hold?.keepForRelease(settings.holdBudgetMs + writers.releaseLimitMs);
    findings.thawed();
    clock.begin('release');
    await this.#releaseWriters();
    clock.end();
    if (armed) await outcome.confirm(hold, filesystems);
    if (armed && !keeps) hold.close();
    else await hold?.release();
    await findings.released();
    this.#progress.to('idle');
    const final = findings.report(true);
    this.#final = final;
    this.#after = this.#runAfter(final, record);
    // What hangs in the kernel is the freezer's, and no command waits for it.
    if (outcome.unconfirmed === undefined || outcome.leftToFreezer) this.#tellReleased(final, ending);
    if (outcome.unconfirmed === undefined) this.#resolveThawed(final);
    if (outcome.unconfirmed === undefined && filesystems?.hangs !== true) this.#tellWritable();
    else void this.#settleLate(ending);
    this.#resolveEnded(final);
    return final;
  }

  async #releaseWriters(): Promise<void> {
    const { id, settings, outcome, acquired } = this.#progress;
    const { writers } = acquired;
    if (writers === undefined) return;
    // Any other ending proves nothing, so the second verify is skipped: applications are waiting.
    if (outcome.kind === 'ok') await writers.verify(settings.holdBudgetMs);
    await writers.release(outcome.kind);
    const { unreleased } = writers;
    if (unreleased.length > 0)
      settings.log.error({ session: id, unreleased }, `not released, tried again and again: ${unreleased.join('; ')}`);
  }

  async #runAfter(final: FreezeReport, record: SessionRecord | undefined): Promise<void> {
    const { id, settings, outcome, frozen, acquired } = this.#progress;
    const { writers } = acquired;
    try {
      await writers?.after(frozen === undefined ? 'abort' : 'post', outcome.kind);
      if (writers !== undefined) {
        const accompanying = writers.accompanying(true);
        const told = { writers: writers.reports(true), ...(accompanying.length === 0 ? {} : { accompanying }) };
        this.#final = { ...(this.#final ?? final), ...told };
      }
      if (frozen !== undefined && writers !== undefined && record !== undefined) {
        const { mountpoints } = acquired.filesystems ?? { mountpoints: [] };
        this.#keep({ report: this.report, outcome: outcome.kind, mountpoints, writers, record });
      }
      if (writers === undefined || writers.unreleased.length === 0) record?.remove();
      else record?.noteEnded();
    } catch (error) {
      settings.log.warn({ session: id }, `after the release: ${describeError(error)}`);
    }
  }

  // Until then a write to what is still frozen, or hangs in its FIFREEZE, would never return.
  async #settleLate(ending: Ending): Promise<void> {
    const { id, settings, outcome } = this.#progress;
    await untilThawed(settings, id);
    if (outcome.unconfirmed !== undefined) {
      outcome.confirmedLate();
      this.#final = { ...this.report, state: 'thawed' };
      if (!outcome.leftToFreezer) this.#tellReleased(this.#final, ending);
      this.#resolveThawed(this.#final);
    }
    this.#tellWritable();
  }

  #tellReleased(final: FreezeReport, { byItself }: Ending): void {
    if (this.#progress.holdTold) this.#progress.settings.onReleased(final, byItself);
  }

  #tellWritable(): void {
    if (this.#progress.holdTold) this.#progress.settings.onWritable(this.#progress.id);
  }
}
