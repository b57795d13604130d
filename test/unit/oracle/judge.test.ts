import { describe, expect, test } from 'vitest';
import type { Engine } from '../../oracle/engine.js';
import { judge, LEAST, type Complaint } from '../../oracle/judge.js';
import { readLog } from '../../oracle/log.js';
import { wrongIn } from '../../oracle/report.js';
import type { Recovered } from '../../oracle/recovery.js';
import type { Way } from '../../oracle/cut.js';

const engineOf = (held: boolean): Engine => ({
  name: 'some',
  streams: [{ name: 'some.table', driver: 'sqlite', at: '', table: '', held, contents: '' }],
  version: '',
  install: '',
  start: '',
  reset: '',
  check: '',
  lost: { writer: '', hook: '' },
});

const done = (from: number, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `> some.table 0 ${from + index}\n< some.table 0 ${from + index}`);
const before = done(0, LEAST);
/** An operation that waits from before the hold until it ends, and one after the thaw. */
const good = [
  ...before,
  '! asked',
  `> some.table 0 ${LEAST}`,
  '! held',
  '! holding',
  '! frozen',
  '! thawing',
  '! releasing',
  `< some.table 0 ${LEAST}`,
  '! thawed',
  ...done(LEAST + 1, 1),
];
const names = (count: number): ReadonlySet<string> =>
  new Set(Array.from({ length: count }, (_, index) => `0 ${index}`));

interface Found {
  readonly lines?: readonly string[];
  readonly there?: ReadonlySet<string>;
  readonly held?: boolean;
  readonly refused?: string;
}
const judged = ({ lines = good, there = names(LEAST), held = true, refused }: Found) => {
  const recovered: Recovered = { there: new Map([['some.table', there]]), recoveryMs: 1, refused, faults: [] };
  return judge(engineOf(held), readLog(lines.join('\n')), recovered);
};
const kinds = (found: Found): Complaint['kind'][] => judged(found).complaints.map(({ kind }) => kind);
const put = (line: string, after: string): string[] => good.flatMap((each) => (each === after ? [each, line] : [each]));

describe('judging a cut', () => {
  test('nothing speaks against one that has what was acknowledged, and may have what waited', () => {
    expect(kinds({})).toEqual([]);
    expect(kinds({ there: names(LEAST + 1) })).toEqual([]);
    expect(judged({}).counts).toMatchObject([{ acknowledged: LEAST, waited: 1, after: 1 }]);
  });

  test('what was acknowledged before the hold and is not there is missing', () => {
    expect(kinds({ there: names(LEAST - 1) })).toEqual(['missing']);
    // Between the request and the hold, too.
    const late = put(done(1000, 1).join('\n'), '! asked');
    expect(kinds({ lines: late })).toEqual(['missing']);
  });

  test('what was sent after the thaw, or never, and is there is foreign', () => {
    expect(kinds({ there: names(LEAST + 2) })).toEqual(['foreign']);
    expect(kinds({ there: new Set([...names(LEAST), '7 7']) })).toEqual(['foreign']);
  });

  test('who is acknowledged between the hold and its end was not held', () => {
    expect(kinds({ lines: put(done(1000, 1).join('\n'), '! held') })).toEqual(['not held']);
    // One that recovers by itself goes on until it is frozen.
    expect(kinds({ lines: put(done(1000, 1).join('\n'), '! held'), held: false })).toEqual([]);
    expect(kinds({ lines: put(done(1000, 1).join('\n'), '! frozen'), held: false })).toEqual(['not held']);
  });

  test('an operation that was on its way when the hold came is no sign that there was none', () => {
    const lines = good.flatMap((line) => {
      if (line === '! asked') return ['> some.table 1 0', line];
      return line === '! held' ? [line, '< some.table 1 0'] : [line];
    });
    expect(kinds({ lines })).toEqual([]);
  });

  test('a cut by which nothing is shown does not count', () => {
    expect(kinds({ lines: good.slice(2), there: names(LEAST) })).toContain('too few');
    expect(kinds({ lines: good.slice(0, -1) })).toEqual(['too few']);
    expect(kinds({ lines: good.filter((line) => !line.endsWith(` ${LEAST}`)) })).toEqual(['too few']);
  });

  test('a server that does not start', () => {
    expect(kinds({ refused: 'no', there: new Set() })).toEqual(['not recovered']);
  });

  test('of a cut made wrong the right reason is needed', () => {
    const wrong = (way: Way, found: Found): readonly string[] => {
      const engines = [{ engine: 'some', recoveryMs: 1, ...judged(found) }];
      const rest = { seed: 1, index: 0, guest: 'user-mode', pauseMs: 1, frozenMs: 1, tookMs: 1 } as const;
      return wrongIn({ way, engines, ...rest }, [engineOf(true)]);
    };
    expect(wrong('held', {})).toEqual([]);
    for (const way of ['lost', 'unheld', 'apart'] as const) {
      expect(wrong(way, {})).toEqual(['some']);
      expect(wrong(way, { lines: good.slice(0, -1) })).toEqual(['some']);
    }
    expect(wrong('apart', { there: names(LEAST + 2) })).toEqual([]);
    expect(wrong('lost', { there: names(LEAST + 2) })).toEqual(['some']);
    expect(wrong('unheld', { there: names(LEAST - 1) })).toEqual([]);
  });

  test('a log that is none is refused', () => {
    expect(() => readLog('< some.table 0 0')).toThrow('never sent');
    expect(() => readLog('! failed Error: no server')).toThrow('the load');
    expect(() => readLog('what')).toThrow('expected > < or !');
  });
});
