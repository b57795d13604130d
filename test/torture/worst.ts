// The figures at the end of a run: what took longest, and where.
import type { Measures } from '../vm/faults/judge.js';

export interface Worst {
  /** Milliseconds from the end of the hold to the first write of the slowest filesystem; below 0 it was before. */
  readonly backMs: number | undefined;
  /** Milliseconds that a writer waited for its thaw after its turn. */
  readonly releaseMs: number | undefined;
}

export function worstOf(results: readonly Measures[]): Worst {
  return { backMs: largest(results, 'backMs'), releaseMs: largest(results, 'releaseMs') };
}

/** One line; `name` says which run it was. */
export function describeWorst<Result extends Measures>(
  results: readonly Result[],
  name: (result: Result) => string,
): string {
  const of = (key: keyof Worst): string => {
    const most = largest(results, key);
    const at = results.find((each) => each[key] === most);
    return most === undefined || at === undefined ? 'not measured' : `${most} ms (${name(at)})`;
  };
  return `worst return of a filesystem: ${of('backMs')}; worst release of a writer: ${of('releaseMs')}`;
}

function largest(results: readonly Measures[], key: keyof Worst): number | undefined {
  const known = results.map((each) => each[key]).filter((ms) => ms !== undefined);
  return known.length === 0 ? undefined : Math.max(...known);
}
