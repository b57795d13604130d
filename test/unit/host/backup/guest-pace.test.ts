// What asks for the rate of a copy, and what keeps a reader at it.
import { expect, test } from 'vitest';
import { FixedPace, GuestPace, slowed } from '../../../../src/host/backup/guest-pace.js';
import { LEAST_RATE } from '../../../../src/host/backup/pace-rule.js';
import type { RequestTimes } from '../../../../src/qmp/request-times.js';

const MEBIBYTE = 1024 * 1024;
const signal = new AbortController().signal;

/** A guest that has made so many writes since it was asked first, each of which took so long. */
function guest(perMs: number, ns = 100_000) {
  const startMs = performance.now();
  const state = { perMs, ns, asked: 0 };
  let [writes, took, lastMs] = [1000, 0, startMs];
  const ask = (): Promise<RequestTimes> => {
    const more = Math.round((performance.now() - lastMs) * state.perMs);
    [writes, took, lastMs] = [writes + more, took + more * state.ns, performance.now()];
    state.asked++;
    return Promise.resolve(new Map([['disk write', { count: writes, ns: took }]]));
  };
  return { ask, state };
}

test('a guest that makes no requests is not waited for', async () => {
  const { ask } = guest(0);
  const pace = await GuestPace.begin(ask);
  const startMs = performance.now();
  expect(await pace.learn(signal)).toBeUndefined();
  expect(performance.now() - startMs).toBeLessThan(300);
});

test('one that does is heard for half a second, and asked twice a second from then on', async () => {
  const { ask, state } = guest(1);
  const startMs = performance.now();
  const pace = await GuestPace.begin(ask);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const first = await pace.learn(signal);
  expect(performance.now() - startMs).toBeGreaterThanOrEqual(490);
  expect(first).toBeGreaterThan(LEAST_RATE);
  const of = pace.of();
  const asked = state.asked;
  for (let n = 0; n < 20; n++) expect(await of(n)).toBe(first);
  expect(state.asked).toBe(asked + 1);
  state.ns *= 100;
  await new Promise((resolve) => setTimeout(resolve, 520));
  expect(await of(MEBIBYTE)).toBe(LEAST_RATE);
});

test('it is left when interrupted', async () => {
  const { ask } = guest(1);
  const pace = await GuestPace.begin(ask);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await expect(pace.learn(AbortSignal.timeout(50))).rejects.toThrow();
});

test('counts that begin anew are no requests', async () => {
  let count = 1000;
  const pace = await GuestPace.begin(() => {
    const of = { count, ns: count * 1000 };
    count = 10;
    return Promise.resolve(new Map([['disk write', of]]));
  });
  expect(await pace.learn(signal)).toBeUndefined();
});

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

test('a reader is kept at a fixed rate', async () => {
  const wait = slowed(new FixedPace(20 * MEBIBYTE).of());
  await wait(0);
  await turn();
  const startMs = performance.now();
  for (let read = 1; read <= 4; read++) await wait(read * MEBIBYTE);
  expect(performance.now() - startMs).toBeGreaterThan(180);
});

test('a reader without a rate is not kept', async () => {
  const wait = slowed(new FixedPace(undefined).of());
  const startMs = performance.now();
  for (let read = 1; read <= 1000; read++) await wait(read * MEBIBYTE);
  expect(performance.now() - startMs).toBeLessThan(1000);
});

test('a reader waits for no answer, and one that fails is the last', async () => {
  let asked = 0;
  const wait = slowed(async (current) => {
    asked++;
    if (current > 1) throw new Error('the VM is gone');
    return await new Promise((resolve) => setTimeout(resolve, 100, MEBIBYTE));
  });
  const startMs = performance.now();
  await wait(1);
  await wait(1);
  expect(performance.now() - startMs).toBeLessThan(90);
  expect(asked).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 150));
  await wait(2);
  await turn();
  await wait(100 * MEBIBYTE);
  await wait(200 * MEBIBYTE);
  expect(performance.now() - startMs).toBeLessThan(1000);
  expect(asked).toBe(2);
});
