// A freezer that does not answer is killed, and nothing else.
import { expect, test } from 'vitest';
import { killFreezer } from '../../../../src/freeze/freezer/process.js';
import { processStat } from '../../../../src/linux/process-stat.js';

test('a process is named by pid and start time; only such a one is killed', () => {
  const own = processStat(process.pid)?.startTime;
  expect(own).toMatch(/^\d+$/);
  expect(processStat(2 ** 30)).toBeUndefined();
  expect(killFreezer({ pid: process.pid, startTime: own ?? '' })).toBe(false);
  expect(killFreezer({ pid: 1, startTime: processStat(1)?.startTime ?? '' })).toBe(false);
  expect(killFreezer({ pid: 2 ** 30, startTime: '' })).toBe(false);
});
