// What a cut is worth for one application: what its clients know, by their log, against what the copy holds.
import type { Engine, Stream } from './engine.js';
import type { Log, Mark, Operation } from './log.js';
import type { Recovered } from './recovery.js';

/**
 * - `missing`: acknowledged before the hold, and not in the copy.
 * - `foreign`: in the copy, and sent after the guest was let go, or never.
 * - `not held`: sent after the hold and acknowledged before it ended.
 * - `checker`, `not recovered`: the engine's own checker finds something; it does not start.
 * - `filesystem`: the filesystem of the root disk has to be recovered.
 * - `too few`: nothing is shown by it: not enough operations before, none that waited, none after.
 */
export interface Complaint {
  readonly kind: 'missing' | 'foreign' | 'not held' | 'checker' | 'not recovered' | 'filesystem' | 'too few';
  readonly text: string;
}

/** What was seen of a source, in operations. */
interface Counts {
  readonly source: string;
  /** Acknowledged before the freeze was asked for. */
  readonly acknowledged: number;
  /** Waited from the hold on (in one that is not held: while it was frozen) until it ended; undefined if that is not known. */
  readonly waited: number | undefined;
  /** Sent after the thaw was answered. */
  readonly after: number;
  readonly missing: number;
  readonly foreign: number;
  readonly notHeld: number;
}

/** Acknowledged operations of a source, without which a cut shows nothing. */
export const LEAST = 200;

function countOperations({ name, held }: Stream, log: Log, there: ReadonlySet<string>): Counts {
  const at = (mark: Mark, other: Mark = mark): number => log.marks.get(mark) ?? log.marks.get(other) ?? NaN;
  const operations = log.operations.get(name) ?? [];
  const count = (which: (operation: Operation) => boolean): number => operations.filter(which).length;
  const from = held ? at('held') : at('frozen', 'releasing');
  const until = held ? at('releasing') : at('thawing', 'releasing');
  // Between the last FITHAW and the release it may have been answered already.
  const isUntilKnown = held || log.marks.has('thawing');
  const begun = new Set(operations.filter(({ sent }) => sent < at('thawed')).map((operation) => operation.name));
  return {
    source: name,
    acknowledged: count(({ acknowledged }) => acknowledged < at('asked')),
    waited: isUntilKnown
      ? count(({ sent, acknowledged }) => sent < (held ? at('holding') : until) && acknowledged > until)
      : undefined,
    after: count(({ sent }) => sent > at('thawed')),
    missing: count((operation) => operation.acknowledged < at('held') && !there.has(operation.name)),
    foreign: [...there].filter((operation) => !begun.has(operation)).length,
    notHeld: count(({ sent, acknowledged }) => sent > from && acknowledged < until),
  };
}

/** What speaks against the cut; nothing if it is what was promised. */
export function judge({ streams }: Engine, log: Log, { there, refused, faults }: Recovered): Judgement {
  const counts = streams.map((stream) => countOperations(stream, log, there.get(stream.name) ?? new Set()));
  const complaints: Complaint[] = counts.flatMap(({ source, acknowledged, waited, after, ...wrong }) => {
    const few = [
      ...(acknowledged < LEAST ? [`${acknowledged} acknowledged before`] : []),
      ...(waited === 0 ? ['none waited'] : []),
      ...(after === 0 ? ['none sent after'] : []),
    ];
    const kinds = { missing: wrong.missing, foreign: wrong.foreign, 'not held': wrong.notHeld } as const;
    return [
      ...(Object.keys(kinds) as (keyof typeof kinds)[])
        // What never started cannot be compared.
        .filter((kind) => kinds[kind] > 0 && !(refused !== undefined && kind === 'missing'))
        .map((kind) => ({ kind, text: `${source}: ${kinds[kind]} of ${acknowledged}` })),
      ...few.map((text) => ({ kind: 'too few' as const, text: `${source}: ${text}` })),
    ];
  });
  if (refused !== undefined) complaints.push({ kind: 'not recovered', text: refused });
  for (const fault of faults) complaints.push(fault);
  return { counts, complaints };
}

export interface Judgement {
  readonly counts: readonly Counts[];
  readonly complaints: readonly Complaint[];
}
