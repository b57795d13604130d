// Keeps what became of one writer of a session, and tells it as reports do; gives several their turn by rank.
import { defined } from '../../defined.js';
import type { PhaseReport, WriterReport } from '../../consistency.js';
import { guaranteeOf, type Writer } from './folders.js';
import type { Peer } from './peer.js';

/** How many phases of one writer a report holds. */
const PHASES_KEPT = 16;

export interface WriterRun {
  readonly writer: Writer;
  /** Who is asked. */
  readonly peer: Peer;
  readonly phases: PhaseReport[];
  state: 'taking-part' | 'failed' | 'not-applicable';
  /** Its freeze was started, so it must be released. */
  started: boolean;
  frozen: boolean;
  /** A phase of it is under way. */
  isBusy: boolean;
  /** Its `thaw` succeeded, or its end has proved that it holds nothing. */
  released: boolean;
  /** How often its `verify` passed. */
  verified: number;
  reason: string | undefined;
}

/** A writer whose freeze was started, at the end. */
export interface Release {
  readonly name: string;
  readonly path: string;
  readonly released: boolean;
  /** Why not, for people. */
  readonly reason?: string;
}

/** `peerFor`: makes who is asked; what it is given is called when the writer fails while nobody asks. */
export function newRun(writer: Writer, peerFor: (onLost: (reason: string) => void) => Peer): WriterRun {
  const run: WriterRun = {
    writer,
    peer: peerFor((reason) => {
      lose(run, reason);
    }),
    phases: [],
    state: 'taking-part',
    started: false,
    frozen: false,
    isBusy: false,
    released: false,
    verified: 0,
    reason: undefined,
  };
  return run;
}

// Something went wrong between its phases.
function lose(run: WriterRun, reason: string): void {
  if (run.state !== 'taking-part' || run.released) return;
  run.state = 'failed';
  run.reason ??= `${run.frozen ? 'lost its hold' : 'before its freeze'}: ${reason}`;
}

export function addPhase({ phases }: WriterRun, report: PhaseReport): void {
  // A writer may be told to let go again and again: the last try says all.
  if (phases.length >= PHASES_KEPT) phases.pop();
  phases.push(report);
}

export function lastThaw({ phases }: WriterRun): PhaseReport | undefined {
  return phases.findLast(({ phase }) => phase === 'thaw');
}

/** Its failure, for people. */
export function failureOf({ writer, reason }: WriterRun): string {
  return `${writer.name}: ${reason ?? 'failed'}`;
}

export function releaseOf(run: WriterRun): Release {
  const { name, path } = run.writer;
  if (run.released) return { name, path, released: true };
  const { text, exitCode, signal } = lastThaw(run) ?? {};
  return { name, path, released: false, reason: text ?? `thaw failed (exit ${exitCode ?? signal ?? 'unknown'})` };
}

/** `final`: after the second verification, without which nothing is verified any more. */
export function reportOf(run: WriterRun, final: boolean): WriterReport {
  const { name, path, kind, required, rank } = run.writer;
  return {
    name,
    path,
    kind,
    required,
    rank,
    ...guaranteeOf(run.writer),
    verdict: verdictOf(run, final),
    ...defined({ reason: run.reason }),
    phases: [...run.phases],
  };
}

function verdictOf(run: WriterRun, final: boolean): WriterReport['verdict'] {
  if (run.state !== 'taking-part') return run.state;
  const { phases } = run.writer;
  const held = run.frozen || !phases.includes('freeze');
  return phases.includes('verify') && held && run.verified >= (final ? 2 : 1) ? 'verified' : 'claimed';
}

/** Gives writers of one rank their turn: plain hooks one by one, all others together beside them. */
export async function sideBySide(
  runs: readonly WriterRun[],
  act: (together: readonly WriterRun[]) => Promise<void>,
): Promise<void> {
  const plain = runs.filter(({ writer }) => writer.kind === 'plain');
  const others = runs.filter(({ writer }) => writer.kind !== 'plain');
  const oneByOne = async (): Promise<void> => {
    for (const run of plain) await act([run]);
  };
  await Promise.all([oneByOne(), ...(others.length === 0 ? [] : [act(others)])]);
}

/** The ranks there are, ascending. */
export function ranks(runs: readonly WriterRun[]): number[] {
  return [...new Set(runs.map(({ writer }) => writer.rank))].sort((a, b) => a - b);
}
