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

const writes = (count: number, nsEach: number): RequestTimes => ({
  read: { count: 0, ns: 0 },
  write: { count, ns: count * nsEach },
  flush: { count: 0, ns: 0 },
});
const nothing = writes(0, 0);
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

test('too few requests tell nothing', () => {
  const rule = new PaceRule();
  rule.learn(writes(9, ALONE_NS));
  expect(rule.rate).toBeUndefined();
  expect(rule.next({ requests: writes(9, 100 * ALONE_NS), copied: FASTEST })).toBeUndefined();
});

test('the rate finds what the requests of a guest let it, and stays there', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  for (let n = 0; n < 30; n++) rule.next(look(rule));
  for (let n = 0; n < 30; n++) {
    rule.next(look(rule));
    expect(slowerAt(rule.rate)).toBeGreaterThan(1.4);
    expect(slowerAt(rule.rate)).toBeLessThan(2.2);
  }
});

test('a copy that slows nobody comes to be as fast as it can be', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  for (let n = 0; n < 60; n++) rule.next(look(rule, ALONE_NS, 0));
  expect(rule.rate).toBeGreaterThan(FASTEST);
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
  rule.next({ requests: writes(100, 20 * ALONE_NS), copied: LEAST_RATE });
  rule.next({ requests: writes(100, ALONE_NS), copied: LEAST_RATE });
  for (let n = 0; n < 30; n++) rule.next(look(rule));
  expect(slowerAt(rule.rate)).toBeGreaterThan(1.4);
  expect(slowerAt(rule.rate)).toBeLessThan(2.4);
});

test('a guest that is slow by itself is not waited for for ever', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  const slowNs = 10 * ALONE_NS;
  for (let n = 0; n < 10; n++) rule.next(look(rule, slowNs, 0));
  expect(rule.rate).toBeGreaterThanOrEqual(LEAST_RATE);
  for (let n = 0; n < 40; n++) rule.next(look(rule, slowNs, 0));
  expect(rule.rate).toBeGreaterThan(FASTEST);
});

test('a guest that comes to be quicker is held to what it is then', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, 10 * ALONE_NS));
  for (let n = 0; n < 40; n++) rule.next(look(rule));
  expect(slowerAt(rule.rate)).toBeLessThan(3);
});

test('more flushes than before are no slower requests', () => {
  const rule = new PaceRule();
  const mixed = (write: number, flush: number): RequestTimes => ({
    read: { count: 0, ns: 0 },
    write: { count: write, ns: write * 1000 },
    flush: { count: flush, ns: flush * 50_000 },
  });
  rule.learn(mixed(1000, 10));
  const before = rule.rate ?? NaN;
  expect(rule.next({ requests: mixed(500, 500), copied: before })).toBeGreaterThan(before);
});

test('it never falls below the lowest rate', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  for (let n = 0; n < 3; n++) rule.next({ requests: writes(100, 1000 * ALONE_NS), copied: 0 });
  expect(rule.rate).toBe(LEAST_RATE);
});

test('a guest that falls silent frees the copy', () => {
  const rule = new PaceRule();
  rule.learn(writes(100, ALONE_NS));
  for (let n = 0; n < 10; n++) rule.next({ requests: nothing, copied: rule.rate ?? NaN });
  expect(rule.rate).toBeUndefined();
});
