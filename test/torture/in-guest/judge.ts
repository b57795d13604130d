// What torture -- in-guest takes for right. Pure.

/** After the end of whatever held the guest. */
const WRITE_LIMIT_S = 1;

export interface Written {
  readonly directory: string;
  /** Seconds of the guest's clock at which each write was done, ascending. */
  readonly at: readonly number[];
}

/** The longest time without a write done, in seconds, from `sinceS` to `untilS`. */
export function longestGapS(at: readonly number[], sinceS: number, untilS: number): number {
  const within = at.filter((each) => each > sinceS && each < untilS);
  const edges = [sinceS, ...within, untilS];
  return Math.max(...edges.slice(1).map((each, place) => each - (edges[place] ?? NaN)));
}

export interface Waits {
  /** On the directory where it is longest. */
  readonly longestS: number;
  /** Of a process that writes to no disk: how long the whole guest stood still, on a busy machine. */
  readonly stoodStillS: number;
  readonly complaints: readonly string[];
}

/** Each directory takes writes again within the limit after `sinceS`, and goes on. */
export function judgeWrites(written: readonly Written[], time: readonly number[], sinceS: number): Waits {
  const untilS = time.at(-1) ?? sinceS;
  const gaps = written.map(({ directory, at }) => ({ directory, gapS: longestGapS(at, sinceS, untilS) }));
  const stoodStillS = longestGapS(time, sinceS, untilS);
  const complaints = gaps
    .filter(({ gapS }) => gapS > WRITE_LIMIT_S)
    .map(
      ({ directory, gapS }) =>
        `no write to ${directory} for ${gapS.toFixed(2)} s (the guest itself stood still for ${stoodStillS.toFixed(2)} s)`,
    );
  if (untilS < sinceS + WRITE_LIMIT_S) complaints.push('the writes were not watched for as long as they may wait');
  return { longestS: Math.max(...gaps.map(({ gapS }) => gapS)), stoodStillS, complaints };
}

export interface OrderedRead {
  /** The number in each directory of the cut, in the order in which they are written. */
  readonly first: number;
  readonly second: number;
  /** Noted outside the guest before the snapshot was asked for. */
  readonly acknowledged: number;
}

/** What is true of every instant of the two: no number is in the second that is not in the first. */
export function isInverted({ first, second }: OrderedRead): boolean {
  return second > first || first > second + 1;
}

/** Without the claim nothing is promised but that what was acknowledged before is there. */
export function judgeOrder(read: OrderedRead, ways: readonly string[], mayClaim: boolean): readonly string[] {
  const { first, second, acknowledged } = read;
  const claims = ways.length === 2 && ways.every((way) => way === 'atomic');
  const complaints: string[] = [];
  if (claims && isInverted(read)) complaints.push(`atomic, and yet ${first} in the first and ${second} in the second`);
  if (claims !== mayClaim)
    complaints.push(`expected ${mayClaim ? 'atomic' : 'per-volume'}, found ${ways.join(' and ') || 'nothing'}`);
  if (Math.min(first, second) < acknowledged || !Number.isInteger(first) || !Number.isInteger(second))
    complaints.push(`acknowledged ${acknowledged}, found ${first} in the first and ${second} in the second`);
  return complaints;
}
