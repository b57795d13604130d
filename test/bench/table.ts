// What every bench prints: a table for people and, with --json, as its last line one object for programs.

/** What a peer was seen to take when it was given up: it would have taken more. */
interface AtLeast {
  readonly atLeast: number;
}
export type PeerSample = number | AtLeast;

export interface Row {
  readonly case: string;
  /** Median, in the unit the case names. */
  readonly ours: number;
  readonly peer: number | null;
  /** Samples that were given up count in `peer`, which is no more than a lower bound then, and `ratio` an upper one. */
  readonly peerAtLeast: boolean;
  readonly ratio: number | null;
  /** The most `ratio` may be; where there is no peer, the most `ours` may be. Null: for information. */
  readonly limit: number | null;
  /** Spread of the samples, for people: `min-max`. */
  readonly spread: string;
}

function median(samples: readonly number[]): number {
  if (samples.length === 0) throw new Error('median of no samples');
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

const digits = (value: number): string => value.toFixed(value < 10 ? 2 : 1);

const spreadOf = (samples: readonly number[]): string =>
  `${digits(Math.min(...samples))}-${digits(Math.max(...samples))}`;

/**
 * A row from samples taken in turns; `limit` is on the ratio of the medians, the peer's by its lower bound. Without a
 * sample of the peer nothing shows that it is kept.
 */
export function compare(name: string, ours: readonly number[], peer: readonly PeerSample[], limit: number | null): Row {
  if (peer.length === 0) return { ...measure(name, ours, limit), ratio: Infinity };
  const low = peer.map((sample) => (typeof sample === 'number' ? sample : sample.atLeast));
  const [a, b] = [median(ours), median(low)];
  // Whatever those that were given up would have taken, the median may be the same.
  const peerAtLeast = median(peer.map((sample) => (typeof sample === 'number' ? sample : Infinity))) !== b;
  const givenUp = peer.filter((sample) => typeof sample !== 'number').length;
  const note = givenUp === 0 ? '' : ` (${givenUp} of ${peer.length} given up)`;
  const spread = `${spreadOf(ours)} / ${spreadOf(low)}${note}`;
  return { case: name, ours: a, peer: b, peerAtLeast, ratio: a / b, limit, spread };
}

/** A row without a peer; `limit` is on the median itself. */
export function measure(name: string, ours: readonly number[], limit: number | null): Row {
  const spread = spreadOf(ours);
  return { case: name, ours: median(ours), peer: null, peerAtLeast: false, ratio: null, limit, spread };
}

/** How many times our median our worst sample was: how far a requester can rely on the median. */
export function worst(name: string, ours: readonly number[], limit: number): Row {
  const most = Math.max(...ours);
  return { ...measure(name, [most / median(ours)], limit), spread: `${digits(most)} of ${digits(median(ours))}` };
}

/** Prints the table, then with `json` the object. Returns whether every limit was kept. */
export function report(bench: string, rows: readonly Row[], json: boolean): boolean {
  const show = (value: number | null): string => (value === null ? '-' : digits(value));
  const kept = (row: Row): boolean => row.limit === null || (row.ratio ?? row.ours) <= row.limit;
  const cells = rows.map((row) => [
    row.case,
    show(row.ours),
    `${row.peerAtLeast ? '>=' : ''}${show(row.peer)}`,
    `${row.peerAtLeast ? '<=' : ''}${show(row.ratio)}`,
    show(row.limit),
    row.limit === null ? '' : kept(row) ? 'ok' : 'OVER',
    row.spread,
  ]);
  const table = [['case', 'ours', 'peer', 'ratio', 'limit', '', 'spread (ours / peer)'], ...cells];
  const widths = table[0]?.map((_, column) => Math.max(...table.map((line) => line[column]?.length ?? 0))) ?? [];
  for (const line of table) {
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    );
  }
  if (json) {
    const plain = rows.map(({ case: name, ours, peer, peerAtLeast, ratio, limit }) => {
      return { case: name, ours, peer, ...(peerAtLeast ? { peerAtLeast } : {}), ratio, limit };
    });
    console.log(JSON.stringify({ bench, rows: plain }));
  }
  return rows.every(kept);
}
