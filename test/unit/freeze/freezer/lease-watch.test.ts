// Our own watch over a lease, on a clock of the test's own. Over a fake freezer: test/unit/freeze/coordinator.test.ts.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { LeaseWatch, type HoldEnd } from '../../../../src/freeze/freezer/lease-watch.js';
import { monotonicMs } from '../../../../src/linux/clock.js';

let ends: HoldEnd[];
let watch: LeaseWatch;
beforeEach(() => {
  vi.useFakeTimers();
  ends = [];
  watch = new LeaseWatch((end) => {
    ends.push(end);
  });
});
afterEach(() => {
  vi.useRealTimers();
});

test('a freezer that says nothing when the lease has ended is silent, a quarter of a second later', async () => {
  watch.arm(1_000);
  await vi.advanceTimersByTimeAsync(1_200);
  expect(ends).toEqual([]);
  await vi.advanceTimersByTimeAsync(100);
  expect(ends).toEqual([{ outcome: 'broken', error: expect.stringContaining('silent past the lease') as string }]);
  expect(watch.silent).toBe(true);
});

test('a lease that is kept here alone ends on time, and nobody is silent', async () => {
  watch.begin(monotonicMs(), monotonicMs() + 1_000);
  expect(watch.remainingMs).toBeCloseTo(1_000, 0);
  await vi.advanceTimersByTimeAsync(1_010);
  expect(ends).toMatchObject([{ outcome: 'expired' }]);
  expect([watch.silent, watch.armed]).toEqual([false, false]);
});

test('an expiry in a critical section is told at its end, or at its bound', async () => {
  watch.arm(100);
  watch.critical(true, 500);
  watch.expired();
  expect(ends).toEqual([]);
  watch.critical(false, 0);
  expect(ends).toMatchObject([{ outcome: 'expired' }]);
  watch.critical(true, 500);
  await vi.advanceTimersByTimeAsync(490);
  expect(ends).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(20);
  expect(ends).toMatchObject([{ outcome: 'expired' }, { outcome: 'expired' }]);
});

test.each([
  ['renewed, it is watched until its new end', false],
  ['once the thaw is told, nothing is watched any more, whatever answers still come', true],
])('%s', async (_what, isOver) => {
  watch.arm(100);
  if (isOver) watch.stop();
  watch.renew(monotonicMs() + 1_000);
  await vi.advanceTimersByTimeAsync(900);
  expect(ends).toEqual([]);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(ends).toHaveLength(isOver ? 0 : 1);
});
