// The figures at the end of torture -- in-guest, one row for each kind that was drawn. Pure.
import { KINDS, type Kind } from './draw.js';
import type { InGuestResult } from './acts.js';

export interface KindSummary {
  readonly kind: Kind;
  readonly runs: number;
  readonly failed: number;
  /** Of `kill` and `lease`: how often it struck in which state. */
  readonly where?: Readonly<Record<string, number>>;
  readonly longestWaitS?: number;
  /** Of `order`: cuts that claim one instant, and those of them that were none; the same of cuts that claim nothing. */
  readonly claimed?: number;
  readonly inversions?: number;
  readonly unclaimed?: number;
  readonly unclaimedInversions?: number;
  /** For people. */
  readonly text: string;
}

export function summary(results: readonly InGuestResult[]): readonly KindSummary[] {
  return KINDS.map((kind) =>
    ofKind(
      kind,
      results.filter((result) => result.kind === kind),
    ),
  ).filter(({ runs }) => runs > 0);
}

function ofKind(kind: Kind, own: readonly InGuestResult[]): KindSummary {
  const head = { kind, runs: own.length, failed: own.filter(({ complaints }) => complaints.length > 0).length };
  const text = `${kind}: ${head.runs} runs, ${head.failed} did not hold`;
  if (kind === 'order') {
    const [claiming, others] = [
      own.filter(({ claimed }) => claimed === true),
      own.filter(({ claimed }) => claimed === false),
    ];
    const inverted = (list: readonly InGuestResult[]): number => list.filter((each) => each.inverted === true).length;
    const counts = {
      claimed: claiming.length,
      inversions: inverted(claiming),
      unclaimed: others.length,
      unclaimedInversions: inverted(others),
    };
    const said = `atomic ${counts.claimed}, inverted ${counts.inversions}; per-volume ${counts.unclaimed}, inverted ${counts.unclaimedInversions}`;
    return { ...head, ...counts, text: `${text}; ${said}` };
  }
  if (kind === 'overflow') return { ...head, text };
  const where: Record<string, number> = {};
  for (const each of own) where[each.where] = (where[each.where] ?? 0) + 1;
  const longestWaitS = Math.max(...own.map(({ waitedS }) => waitedS ?? 0));
  const struck = Object.entries(where).map(([state, runs]) => `${state} ${runs}`);
  return {
    ...head,
    where,
    longestWaitS,
    text: `${text}; struck ${struck.join(', ')}; writes waited ${longestWaitS.toFixed(2)} s at most`,
  };
}
