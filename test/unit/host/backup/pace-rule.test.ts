// How fast to copy beside a guest, against a guest whose requests wait the longer the faster is copied.
import { expect, test } from 'vitest';
import { LEAST_RATE, PaceRule, type Look } from '../../../../src/host/backup/pace-rule.js';
import type { RequestTimes } from '../../../../src/qmp/request-times.js';

const MEBIBYTE = 1024 * 1024;
const ALONE_NS = 300_000;
/** What the disk gives. */
const FASTEST = 1000 * MEBIBYTE;
/** At which requests take twice as long. */
const DOUBLING = 200 * MEBIBYTE;

const writes = (count: number, nsEach: number): RequestTimes =>
  new Map(count === 0 ? [] : [['disk write', { count, ns: count * nsEach }]]);
const nothing = writes(0, 0);
/** Multiplies by what chance makes of a mean; the same each time. */
function noise(spread: number): () => number {
  let state = 1;
  const uniform = (): number => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return (state + 0.5) / 2 ** 31;
  };
  return () => Math.exp(spread * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}
/** A look at a guest that writes while the disks are copied at the rule's rate. */
const look = (rule: PaceRule, aloneNs = ALONE_NS, perByte = 1): Look => {
  const copied = Math.min(rule.rate ?? Infinity, FASTEST);
  return { requests: writes(100, aloneNs * (1 + (perByte * copied) / DOUBLING)), copied };
};
const slowerAt = (rate: number | undefined): number => 1 + Math.min(rate ?? Infinity, FASTEST) / DOUBLING;

test('a guest of which nothing is heard needs no limit', () => {
  const rule = new PaceRule();
  rule.learn(nothing);
  expect(rule.rate).toBeUndefined();
  for (let n = 0; n < 5; n++) expect(rule.next({ requests: nothing, copied: FASTEST })).toBeUndefined();
});

test('a guest that makes one request now and then is not waited for', () => {
  const rule = new PaceRule();
  rule.learn(writes(1, ALONE_NS));
  expect(rule.rate).toBeUndefined();
  for (let n = 0; n < 100; n++) rule.next({ requests: writes(n % 5 === 0 ? 1 : 0, ALONE_NS), copied: FASTEST });
  expect(rule.rate).toBeUndefined();
});

test.each([
  ['few requests in each look', () => 4],
  ['many in every fourth', (n: number) => (n % 4 === 0 ? 100 : 0)],
])('a guest that makes %s is spared', (_what, count) => {
  const rule = new PaceRule();
  let slowed = 0;
  for (let n = 0; n < 400; n++) {
    const copied = Math.min(rule.rate ?? Infinity, FASTEST);
    if (n >= 100) slowed += slowerAt(rule.rate) / 300;
    rule.next({ requests: writes(count(n), ALONE_NS * slowerAt(copied)), copied });
  }
  expect(slowed).toBeLessThan(2.5);
});

/** Over so many looks, without those at the lowest rate. */
function ratesOver(looks: number, rule: PaceRule, of: () => Look): number[] {
  const rates = Array.from({ length: looks }, () => rule.next(of()) ?? Infinity);
  return rates.filter((rate) => rate !== LEAST_RATE);
}

test('the rate finds what the requests of a guest let it, and stays there', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  ratesOver(30, rule, () => look(rule));
  const slower = ratesOver(200, rule, () => look(rule)).map(slowerAt);
  expect(slower.length).toBeGreaterThan(180);
  expect(Math.min(...slower)).toBeGreaterThan(1.2);
  expect(Math.max(...slower)).toBeLessThan(3);
  expect(slower.reduce((sum, each) => sum + each / slower.length, 0)).toBeLessThan(2.2);
});

test.each([0, 0.4, 0.8])('a copy that slows nobody comes to be as fast as it can be (noise of %s)', (spread) => {
  const rule = new PaceRule();
  const chance = noise(spread);
  rule.learn(writes(100, ALONE_NS * chance()));
  const copied = Array.from({ length: 1000 }, () => {
    rule.next({ requests: writes(100, ALONE_NS * chance()), copied: Math.min(rule.rate ?? Infinity, FASTEST) });
    return Math.min(rule.rate ?? Infinity, FASTEST);
  });
  expect(copied.reduce((sum, each) => sum + each / 1000, 0)).toBeGreaterThan(0.7 * FASTEST);
});

test('what does not bound the copy does not grow', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  const before = rule.rate;
  for (let n = 0; n < 5; n++) rule.next({ requests: writes(100, ALONE_NS), copied: MEBIBYTE });
  expect(rule.rate).toBe(before);
});

test('a guest that begins to work meanwhile is heard at the lowest rate first', () => {
  const rule = new PaceRule();
  rule.learn(nothing);
  expect(rule.next(look(rule))).toBe(LEAST_RATE);
  // This look began before the rate was in force.
  expect(rule.next({ requests: writes(100, 20 * ALONE_NS), copied: LEAST_RATE })).toBe(LEAST_RATE);
  expect(rule.next({ requests: writes(100, ALONE_NS), copied: LEAST_RATE })).toBeGreaterThan(LEAST_RATE);
  ratesOver(30, rule, () => look(rule));
  const slower = ratesOver(100, rule, () => look(rule)).map(slowerAt);
  expect(Math.max(...slower)).toBeLessThan(3);
});

test.each([1.8, 10])('a guest that comes to be %s times slower by itself is not waited for for ever', (times) => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  ratesOver(150, rule, () => look(rule, times * ALONE_NS, 0));
  expect(rule.rate).toBeGreaterThan(FASTEST);
});

test('a guest that comes to be quicker is held to what it is then', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, 10 * ALONE_NS));
  ratesOver(300, rule, () => look(rule));
  expect(Math.max(...ratesOver(40, rule, () => look(rule)).map(slowerAt))).toBeLessThan(3);
});

test('more flushes than before, or more for a slow disk, are no slower requests', () => {
  const rule = new PaceRule();
  const mixed = (quick: number, slow: number): RequestTimes =>
    new Map([
      ['ssd write', { count: quick, ns: quick * 1000 }],
      ['hdd flush', { count: slow, ns: slow * 50_000 }],
    ]);
  rule.learn(mixed(1000, 10));
  const before = rule.rate ?? NaN;
  expect(rule.next({ requests: mixed(500, 500), copied: before })).toBeGreaterThan(before);
});

test('what takes long while nothing is copied is not because of it', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  const before = rule.rate;
  for (let n = 0; n < 30; n++) expect(rule.next({ requests: writes(100, 50 * ALONE_NS), copied: 0 })).toBe(before);
});

test('it never falls below the lowest rate', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  for (let n = 0; n < 3; n++) rule.next({ requests: writes(100, 1000 * ALONE_NS), copied: 1 });
  expect(rule.rate).toBe(LEAST_RATE);
});

test('a guest that falls silent frees the copy', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  for (let n = 0; n < 40; n++) rule.next({ requests: nothing, copied: rule.rate ?? NaN });
  expect(rule.rate).toBeUndefined();
});
