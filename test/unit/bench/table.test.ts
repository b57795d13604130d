import { afterEach, expect, test, vi } from 'vitest';
import { compare, report } from '../../bench/table.js';

const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
afterEach(() => {
  log.mockClear();
});

const given = (atLeast: number) => ({ atLeast });

test('a sample that was given up counts as what was seen of it: the median is a lower bound, and judged as one', () => {
  const row = compare('stall, ms', [10, 10, 10], [15, given(30), given(40)], 0.3);
  expect(row).toMatchObject({ peer: 30, peerAtLeast: true, ratio: 10 / 30 });
  expect(report('name', [row], true)).toBe(false);
  const lines = log.mock.calls.map(([line]) => String(line));
  expect(lines[1]).toMatch(/>=30\.0 +<=0\.33 +0\.30 +OVER +10\.0-10\.0 \/ 15\.0-40\.0 \(2 of 3 given up\)$/);
  expect(JSON.parse(lines[2] ?? '')).toEqual({
    bench: 'name',
    rows: [{ case: 'stall, ms', ours: 10, peer: 30, peerAtLeast: true, ratio: 10 / 30, limit: 0.3 }],
  });
  expect(report('name', [compare('stall, ms', [9], [given(30)], 0.3)], false)).toBe(true);
});

test('one that was given up above the median changes nothing but the spread', () => {
  const row = compare('stall, ms', [10], [15, 20, given(60_000)], 0.5);
  expect(row).toMatchObject({ peer: 20, peerAtLeast: false, ratio: 0.5 });
  expect(row.spread).toBe('10.0-10.0 / 15.0-60000.0 (1 of 3 given up)');
  report('name', [row], true);
  expect(log.mock.calls.at(-1)?.[0]).not.toContain('peerAtLeast');
});

test('without a sample of the peer no limit is kept', () => {
  const row = compare('stall, ms', [10], [], 0.5);
  expect(row.peer).toBeNull();
  expect(report('name', [row], false)).toBe(false);
});
