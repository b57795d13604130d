// A session that was held and is over, as long as its requester may say what became of the cut: which writers are to be
// told, and what. How it lies on tmpfs: ../writers/kept-record.ts. How many are kept, and for how long:
// kept-sessions.ts. Who asks for the phase: completions.ts.
import type { CompleteOutcome, Completion, FreezeReport } from '../../consistency.js';
import { defined } from '../../defined.js';
import { monotonicMs } from '../../linux/clock.js';
import { processStat } from '../../linux/process-stat.js';
import type { Settings } from '../settings.js';
import type { Writer } from '../writers/folders.js';
import { KeptRecord, type KeptHead, type KeptWriter } from '../writers/kept-record.js';
import { endLeftProcesses } from '../writers/left-processes.js';
import type { SessionOutcome } from '../writers/peer.js';
import { mountpointList } from '../writers/phase.js';
import type { SessionRecord } from '../writers/record.js';
import { WriterSet } from '../writers/writer-set.js';

/** A session that was held, when `post` of its writers is done. */
export interface EndedSession {
  readonly report: FreezeReport;
  readonly outcome: SessionOutcome;
  readonly mountpoints: readonly string[];
  readonly writers: WriterSet;
  readonly record: SessionRecord;
}

export class KeptSession {
  readonly head: KeptHead;
  readonly #record: KeptRecord;
  #completion: Completion | undefined;
  /** Settles when nothing runs any more that an agent before this one had started; undefined before that is looked at. */
  #leftEnded: Promise<void> | undefined;

  private constructor(record: KeptRecord, head: KeptHead, completion?: Completion) {
    this.#record = record;
    this.head = head;
    this.#completion = completion;
  }

  /** `folder`: of all kept sessions. Throws as KeptRecord.keep does. */
  static keep(folder: string, { report, outcome, mountpoints, writers, record }: EndedSession): KeptSession {
    const { session, requester, leaseMs, accompanying } = report;
    const head: KeptHead = {
      version: 1,
      session,
      requester,
      startTime: processStat(process.pid)?.startTime ?? '0',
      endedMs: monotonicMs(),
      leaseMs,
      mountpoints: [...mountpoints],
      writers: writers.completing.map(({ writer, failed }) => asKept(writer, failed || outcome !== 'ok')),
      report: { session, writers: report.writers, ...defined({ accompanying }) },
    };
    const kept = new KeptSession(KeptRecord.keep(folder, head, record), head);
    kept.#leftEnded = Promise.resolve();
    return kept;
  }

  /** Undefined, and removed, if it was not finished, or is nothing that this version wrote. Throws what rm(2) does. */
  static open(folder: string, name: string): KeptSession | undefined {
    const record = KeptRecord.at(folder, name);
    try {
      const head = record.keptHead();
      if (head !== undefined) return new KeptSession(record, head, record.answer());
    } catch {
      // Whom it told what is not known: it must not be told again.
    }
    record.remove();
    return undefined;
  }

  /** The answer that was given; undefined while nobody has asked, or it is not done. */
  get completion(): Completion | undefined {
    return this.#completion;
  }

  /** Its writers with the phase `complete`. */
  writerSet({
    writerOwner,
    writerLimitsMs,
    leaseMaxMs,
  }: Pick<Settings, 'writerOwner' | 'writerLimitsMs' | 'leaseMaxMs'>): WriterSet {
    const { session, leaseMs, mountpoints, writers } = this.head;
    return new WriterSet(
      writers.map((one) => asWriter(one, writerOwner)),
      {
        session,
        leaseMs,
        leaseMaxMs,
        mountpoints: mountpointList(mountpoints),
        record: this.#record,
        zeroMs: monotonicMs(),
        limitsMs: writerLimitsMs,
      },
    );
  }

  /** What a writer is told if the requester says `outcome`. */
  toldTo(path: string, outcome: CompleteOutcome): CompleteOutcome {
    const atBest = this.head.writers.find((writer) => writer.path === path)?.atBest;
    return outcome === 'ok' && atBest === 'ok' ? 'ok' : 'failed';
  }

  /** A `complete` that an agent left running when it died would run beside the next one. Acts once. Never throws. */
  async endLeft(): Promise<void> {
    if (this.#completion !== undefined) return;
    this.#leftEnded ??= endLeftProcesses(this.#record, this.head.session, this.head.startTime);
    await this.#leftEnded;
  }

  /** From now on this is the answer, also of an agent that is started anew. Throws what write(2) does. */
  complete(completion: Completion): void {
    this.#completion = completion;
    this.#record.noteAnswer(completion);
  }

  /** Throws what unlink(2) does. */
  remove(): void {
    this.#record.remove();
  }
}

function asKept({ name, path, folder, rank, description }: Writer, failed: boolean): KeptWriter {
  const timeout = description?.timeout.complete;
  return {
    name,
    path,
    folder: folder.path,
    style: folder.style,
    rank,
    ...(timeout === undefined ? {} : { timeout }),
    atBest: failed ? 'failed' : 'ok',
  };
}

function asWriter({ name, path, folder, style, rank, timeout }: KeptWriter, owner: number): Writer {
  const phases = ['complete' as const];
  return {
    name,
    path,
    folder: { path: folder, style },
    kind: 'described',
    rank,
    phases,
    required: true,
    description: {
      phases,
      rank,
      timeout: timeout === undefined ? {} : { complete: timeout },
      required: true,
      covers: [],
    },
    // As for a thaw: the file may have been replaced by an update since.
    checked: { owner },
  };
}
