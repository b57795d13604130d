// What ends a session (Ending), and how it came out (Outcome): the thaw, its confirmation, and the error that is told
// of them, the worst first. The order in which things are undone: finish.ts.
import type { FilesystemSet } from './filesystem-set.js';
import type { FreezerHold, ThawResult } from '../freezer/hold.js';
import type { FreezeLog } from '../options.js';
import type { SessionOutcome } from '../writers/peer.js';

export interface Ending {
  readonly outcome: SessionOutcome;
  readonly error?: string;
  /** It was neither thaw() nor the signal nor a failed step. */
  readonly byItself: boolean;
}

export class Outcome {
  readonly #session: string;
  readonly #log: FreezeLog;
  #kind: SessionOutcome = 'ok';
  #error: string | undefined;
  #leftToFreezer = false;
  /** The freezer's words, if it answered the last thaw with an error: something is not thawed yet. */
  #unfinished: string | undefined;
  #unconfirmed: string | undefined;

  constructor(session: string, log: FreezeLog) {
    this.#session = session;
    this.#log = log;
  }

  get kind(): SessionOutcome {
    return this.#kind;
  }

  /** Why its kind is not `ok`. */
  get error(): string | undefined {
    return this.#error;
  }

  /** Why it is not known that everything is thawed; undefined if it is. */
  get unconfirmed(): string | undefined {
    return this.#unconfirmed;
  }

  /** All that is not confirmed to be thawed hangs in the kernel, and the freezer, which is well, keeps at it. */
  get leftToFreezer(): boolean {
    return this.#leftToFreezer;
  }

  /** The session ends now, for this reason. What is found out from here on can only be worse. */
  begin({ outcome, error }: Ending): void {
    this.#kind = outcome;
    this.#error = error;
  }

  /** Step 6. Never throws. */
  async thaw(hold: FreezerHold, filesystems: FilesystemSet): Promise<void> {
    this.#record(await hold.thaw(), filesystems);
  }

  /** Everything is known to be thawed by now. */
  thawed(filesystems: FilesystemSet): boolean {
    return this.#unconfirmed === undefined && this.#unfinished === undefined && filesystems.unthawed.length === 0;
  }

  /** After the release: asks once more, as a disk that did not answer may do so by now. Never throws. */
  async confirm(hold: FreezerHold, filesystems: FilesystemSet): Promise<void> {
    if (this.#unconfirmed === undefined && !this.thawed(filesystems)) this.#record(await hold.thaw(), filesystems);
    if (this.#unconfirmed === undefined && !this.thawed(filesystems)) {
      const what = filesystems.unthawed.join(', ');
      this.#unconfirmed = `nobody confirmed the thaw${what === '' ? `: ${this.#unfinished ?? ''}` : ` of ${what}`}`;
    }
    if (this.#unconfirmed === undefined) return;
    const before = this.#error === this.#unconfirmed ? undefined : this.#error;
    this.#worsen('broken', this.#unconfirmed);
    // Whatever else went wrong, this is what must be seen.
    this.#error = before === undefined ? this.#unconfirmed : `${this.#unconfirmed}; ${before}`;
  }

  /** It has become known, long after the end, that everything is thawed. */
  confirmedLate(): void {
    this.#unconfirmed = undefined;
    this.#log.warn({ session: this.#session }, 'everything is thawed now');
  }

  #record({ answers, end, byMarker, unfinished, unconfirmed }: ThawResult, filesystems: FilesystemSet): void {
    const isLast = unfinished === undefined && unconfirmed === undefined && !byMarker;
    filesystems.recordThaw(answers, isLast);
    this.#leftToFreezer = isLast && filesystems.leftToFreezer;
    if (byMarker) filesystems.recordThawedByMarker();
    this.#unfinished = unfinished;
    this.#unconfirmed = unconfirmed;
    if (end !== undefined) this.#worsen(end.outcome, end.error);
    const foreign = filesystems.foreignThaws;
    if (foreign.length > 0)
      this.#worsen('broken', `somebody else thawed ${foreign.join(', ')} while the guest was held`);
  }

  #worsen(outcome: SessionOutcome, error: string): void {
    if (this.#kind === 'ok') this.#kind = outcome;
    this.#error ??= error;
    this.#log.error({ session: this.#session }, error);
  }
}
