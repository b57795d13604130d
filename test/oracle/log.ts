// The log of a load (load/main.ts): operations as sent and as acknowledged, and marks between them. A place in it is the
// number of a line.

/**
 * In the order in which they are made:
 *
 * - `asked`: before the freeze is asked for.
 * - `held`: all writers hold, and nothing is frozen yet (by a writer of the oracle's own, the last one to hold).
 * - `holding`: a while later; the first FIFREEZE is next.
 * - `frozen`: the freeze was answered; the disks are cut next. Not where the host tool cuts.
 * - `thawing`: before the thaw is asked for. Not where the host tool cuts.
 * - `releasing`: the last FITHAW was before; the first writer lets go next.
 * - `thawed`: the thaw was answered.
 */
export type Mark = 'asked' | 'held' | 'holding' | 'frozen' | 'thawing' | 'releasing' | 'thawed';

export interface Operation {
  /** `CLIENT NUMBER`. */
  readonly name: string;
  readonly sent: number;
  /** Infinity if it never was. */
  acknowledged: number;
}

export interface Log {
  /** The first place of each mark that is there. */
  readonly marks: ReadonlyMap<string, number>;
  readonly operations: ReadonlyMap<string, readonly Operation[]>;
}

/** Throws an Error with the load's own words if it failed, or with a line that is none of a log. */
export function readLog(text: string): Log {
  const marks = new Map<string, number>();
  const operations = new Map<string, Operation[]>();
  const underWay = new Map<string, Operation>();
  for (const [place, line] of text.trimEnd().split('\n').entries()) {
    const [kind, source = '', ...rest] = line.split(' ');
    const name = rest.join(' ');
    if (kind === '!' && source === 'failed') throw new Error(`the load: ${name}`);
    if (kind === '!' && !marks.has(source)) marks.set(source, place);
    if (kind === '>') {
      const operation = { name, sent: place, acknowledged: Infinity };
      underWay.set(`${source} ${name}`, operation);
      const of = operations.get(source);
      if (of === undefined) operations.set(source, [operation]);
      else of.push(operation);
    } else if (kind === '<') {
      const operation = underWay.get(`${source} ${name}`);
      if (operation === undefined) throw new Error(`log of the load: acknowledged and never sent: ${line}`);
      operation.acknowledged = place;
    } else if (kind !== '!') throw new Error(`log of the load: expected > < or !, found ${line}`);
  }
  return { marks, operations };
}
