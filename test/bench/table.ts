// What every bench prints: a table for people and, with --json, as its last line one object for programs.

export interface Row {
  readonly case: string;
  /** Median, in the unit the case names. */
  readonly ours: number;
  readonly peer: number | null;
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

/** A row from samples taken in turns; `limit` is on the ratio of the medians. */
export function compare(name: string, ours: readonly number[], peer: readonly number[], limit: number | null): Row {
  const [a, b] = [median(ours), median(peer)];
  return { case: name, ours: a, peer: b, ratio: a / b, limit, spread: `${spreadOf(ours)} / ${spreadOf(peer)}` };
}

/** A row without a peer; `limit` is on the median itself. */
export function measure(name: string, ours: readonly number[], limit: number | null): Row {
  return { case: name, ours: median(ours), peer: null, ratio: null, limit, spread: spreadOf(ours) };
}

/** Prints the table, then with `json` the object. Returns whether every limit was kept. */
export function report(bench: string, rows: readonly Row[], json: boolean): boolean {
  const show = (value: number | null): string => (value === null ? '-' : digits(value));
  const kept = (row: Row): boolean => row.limit === null || (row.ratio ?? row.ours) <= row.limit;
  const cells = rows.map((row) => [
    row.case,
    show(row.ours),
    show(row.peer),
    show(row.ratio),
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
    const plain = rows.map(({ case: name, ours, peer, ratio, limit }) => ({ case: name, ours, peer, ratio, limit }));
    console.log(JSON.stringify({ bench, rows: plain }));
  }
  return rows.every(kept);
}
