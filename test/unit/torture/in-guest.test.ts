// The pure parts of `torture -- in-guest`: what is drawn, what is complained of, what is told at the end.
import { expect, test } from 'vitest';
import { kindsOf } from '../../torture/in-guest.js';
import { drawInGuest, KINDS } from '../../torture/in-guest/draw.js';
import { isInverted, judgeOrder, judgeWrites, longestGapS } from '../../torture/in-guest/judge.js';
import { summary } from '../../torture/in-guest/summary.js';

const kernels = ['6.1', '6.12'] as const;
const draws = Array.from({ length: 400 }, (_, index) => drawInGuest(1, index, KINDS, kernels));

test('a run is what its seed, its kinds and its number say', () => {
  expect(drawInGuest(7, 3, KINDS, kernels)).toEqual(drawInGuest(7, 3, KINDS, kernels));
  for (const kind of KINDS) {
    expect(draws.filter((each) => each.kind === kind).length).toBeGreaterThan(60);
    expect(drawInGuest(7, 3, [kind], kernels).kind).toBe(kind);
  }
  for (const kernel of kernels) expect(draws.filter((each) => each.kernel === kernel).length).toBeGreaterThan(150);
  for (const from of ['start', 'hold']) expect(draws.filter((each) => each.from === from).length).toBeGreaterThan(150);
  for (const { within } of draws) expect(within >= 0 && within < 1).toBe(true);
});

test('kinds are chosen by their names', () => {
  expect(kindsOf(undefined)).toEqual(KINDS);
  expect(kindsOf('order,kill')).toEqual(['order', 'kill']);
  expect(kindsOf('kill,what')).toBeUndefined();
});

test('a gap without a write counts from the end of the hold to the end of the watch', () => {
  expect(longestGapS([1, 2, 5, 6], 1.5, 7)).toBe(3);
  expect(longestGapS([1], 1.5, 4)).toBe(2.5);
  expect(longestGapS([1, 1.9], 0.5, 4)).toBeCloseTo(2.1);
});

test('a write that waits longer than a second after the hold is complained of, one during it is not', () => {
  const time = Array.from({ length: 60 }, (_, step) => 8 + step / 10);
  const sound = { directory: '/a', at: time.filter((at) => at < 9 || at > 10.3) };
  expect(judgeWrites([sound], time, 10)).toMatchObject({ complaints: [] });
  const late = { directory: '/b', at: time.filter((at) => at < 9 || at > 11.5) };
  expect(judgeWrites([sound, late], time, 10).complaints).toEqual([
    'no write to /b for 1.60 s (the guest itself stood still for 0.10 s)',
  ]);
  const never = { directory: '/c', at: time.filter((at) => at < 9) };
  expect(judgeWrites([never], time, 10).complaints).toHaveLength(1);
  expect(judgeWrites([sound], time, 13.5).complaints).toEqual([
    'the writes were not watched for as long as they may wait',
  ]);
});

test('two numbers are of one instant if the second is the first or the one before', () => {
  const read = (first: number, second: number) => ({ first, second, acknowledged: 5 });
  expect([read(7, 7), read(7, 6)].map(isInverted)).toEqual([false, false]);
  expect([read(7, 8), read(7, 5)].map(isInverted)).toEqual([true, true]);
});

test('an inversion is complained of where one instant is claimed, a lost write everywhere', () => {
  const atomic = ['atomic', 'atomic'];
  const apart = ['per-volume', 'per-volume'];
  const inverted = { first: 7, second: 9, acknowledged: 5 };
  expect(judgeOrder({ first: 7, second: 7, acknowledged: 5 }, atomic, true)).toEqual([]);
  expect(judgeOrder(inverted, atomic, true)).toEqual(['atomic, and yet 7 in the first and 9 in the second']);
  expect(judgeOrder(inverted, apart, false)).toEqual([]);
  expect(judgeOrder(inverted, apart, true)).toEqual(['expected atomic, found per-volume and per-volume']);
  expect(judgeOrder({ first: 7, second: 7, acknowledged: 5 }, atomic, false)).toHaveLength(1);
  expect(judgeOrder({ first: 7, second: 6, acknowledged: 7 }, atomic, true)).toHaveLength(1);
  expect(judgeOrder({ first: NaN, second: 6, acknowledged: 5 }, atomic, true)).not.toEqual([]);
});

test('the summary counts by kind, and inversions by what was claimed', () => {
  const base = { index: 0, kernel: '6.12', paths: ['/srv/a'], from: 'start', within: 0, tookMs: 1 } as const;
  const sound = { ...base, complaints: [] };
  const rows = summary([
    { ...sound, kind: 'kill', where: 'frozen', waitedS: 0.2 },
    { ...sound, kind: 'kill', where: 'frozen', waitedS: 0.4, complaints: ['gc left vg/x'] },
    { ...sound, kind: 'order', where: '', claimed: true, inverted: false },
    { ...sound, kind: 'order', where: '', claimed: false, inverted: true },
  ]);
  expect(rows).toMatchObject([
    { kind: 'kill', runs: 2, failed: 1, where: { frozen: 2 }, longestWaitS: 0.4 },
    { kind: 'order', runs: 2, failed: 0, claimed: 1, inversions: 0, unclaimed: 1, unclaimedInversions: 1 },
  ]);
});
