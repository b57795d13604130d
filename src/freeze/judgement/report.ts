// Builds the report of a session from what its parts know, and keeps the time of its steps. Pure. The level and its
// evidence: verdict.ts.
import { defined } from '../../defined.js';
import type {
  Artefact,
  ConsistencyLevel,
  FreezeReport,
  FilesystemReport,
  SessionStep,
  Span,
  WriterReport,
} from '../../consistency.js';
import type { Verdict } from './verdict.js';
import type { SkippedMount } from '../../linux/mounts.js';
import type { SessionOutcome } from '../writers/peer.js';

/** When each step began and ended, in milliseconds on CLOCK_MONOTONIC. */
export class StepClock {
  readonly zeroMs: number;
  readonly #spans: { step: SessionStep; startMs: number; endMs: number }[] = [];
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
    this.zeroMs = now();
  }

  /** Ends the step that is under way and begins this one. A step that is begun twice goes on. */
  begin(step: SessionStep): void {
    const current = this.#spans.at(-1);
    if (current?.step === step) return;
    this.end();
    const startMs = this.#now();
    this.#spans.push({ step, startMs, endMs: startMs });
  }

  /** Ends the step that is under way. */
  end(): void {
    const current = this.#spans.at(-1);
    if (current !== undefined) current.endMs = this.#now();
  }

  /** In milliseconds since the session began. */
  get steps(): { step: SessionStep; startMs: number; endMs: number }[] {
    return this.#spans.map(({ step, startMs, endMs }) => ({
      step,
      startMs: startMs - this.zeroMs,
      endMs: endMs - this.zeroMs,
    }));
  }

  /** Undefined if the session has not come to this step. */
  span(step: SessionStep): Span | undefined {
    return this.steps.find((one) => one.step === step);
  }
}

export interface ReportParts {
  readonly session: string;
  readonly requester: string;
  readonly final: boolean;
  /** Everything is known to be thawed; counts once the report is final. */
  readonly thawed: boolean;
  readonly outcome: SessionOutcome;
  readonly verdict: Verdict;
  /** Only where filesystems were left to a provider. */
  readonly levelWithProvider?: ConsistencyLevel;
  readonly error: string | undefined;
  readonly filesystems: FilesystemReport[];
  readonly writers: WriterReport[];
  readonly accompanying: WriterReport[];
  readonly artefacts: Artefact[];
  readonly unsafeWriters: readonly { readonly what: string; readonly reason: string }[];
  /** Writers that could not be let go; empty while nobody tried. */
  readonly unreleased: readonly { readonly what: string; readonly reason: string }[];
  readonly skipped: readonly SkippedMount[];
  readonly clock: StepClock;
  readonly leaseMs: number;
  /** On CLOCK_MONOTONIC, by the freezer's clock; undefined while it lasts, and where nothing was frozen. */
  readonly frozenSpan: Span | undefined;
}

/** It had a phase in step 3 or 7, while applications may be held for it. */
function tookPart({ phases }: WriterReport): boolean {
  return phases.some(({ phase }) => phase === 'freeze' || phase === 'verify');
}

function outcomeOf({ outcome, writers, unsafeWriters, unreleased }: ReportParts): FreezeReport['outcome'] {
  if (outcome !== 'ok') return outcome;
  if (unreleased.length > 0) return 'unreleased';
  const isWhole = unsafeWriters.length === 0 && writers.every(({ verdict }) => verdict !== 'failed');
  return isWhole ? 'ok' : 'incomplete';
}

export function buildReport(parts: ReportParts): FreezeReport {
  const { clock, final, frozenSpan, error } = parts;
  const frozenWindowMs = final && frozenSpan !== undefined ? frozenSpan.endMs - frozenSpan.startMs : 0;
  const hold = clock.span('hold');
  const release = clock.span('release');
  const pauseWindowMs =
    final && [...parts.writers, ...parts.accompanying].some(tookPart) && hold !== undefined && release !== undefined
      ? release.endMs - hold.startMs
      : frozenWindowMs;
  return {
    session: parts.session,
    requester: parts.requester,
    state: final && parts.thawed ? 'thawed' : 'frozen',
    outcome: outcomeOf(parts),
    level: parts.verdict.level,
    ...defined({ levelWithProvider: parts.levelWithProvider }),
    evidence: [...parts.verdict.evidence],
    ...defined({ error }),
    filesystems: parts.filesystems,
    writers: parts.writers,
    ...(parts.accompanying.length === 0 ? {} : { accompanying: parts.accompanying }),
    ...(parts.artefacts.length === 0 ? {} : { artefacts: parts.artefacts }),
    ...(parts.unsafeWriters.length === 0
      ? {}
      : { unsafeWriters: parts.unsafeWriters.map(({ what, reason }) => ({ what, reason })) }),
    ...(parts.unreleased.length === 0 ? {} : { unreleased: [...parts.unreleased] }),
    skipped: parts.skipped.map(({ what, reason }) => ({ what, reason })),
    steps: clock.steps,
    leaseMs: parts.leaseMs,
    pauseWindowMs,
    frozenWindowMs,
  };
}
