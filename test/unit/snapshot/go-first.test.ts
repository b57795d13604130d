import { getPriority } from 'node:os';
import { expect, test } from 'vitest';
import { goFirst } from '../../../src/snapshot/go-first.js';

test('a process that went first is as it was afterwards, whether it may go first or not', () => {
  const before = getPriority();
  const goBack = goFirst(process.pid);
  if (process.geteuid?.() === 0) expect(getPriority()).toBeLessThan(before);
  goBack();
  expect(getPriority()).toBe(before);
});

test('one that has ended is nothing to fail for', () => {
  expect(() => {
    goFirst(2 ** 22 + 1)();
  }).not.toThrow();
});
