// A process is named by its pid and its start time.
import { expect, test } from 'vitest';
import { processStat, stillRuns } from '../../../src/linux/process-stat.js';

test('a process is the one with its start time', () => {
  const { startTime = '' } = processStat(process.pid) ?? {};
  expect(stillRuns({ pid: process.pid, startTime })).toBe(true);
  expect(stillRuns({ pid: process.pid, startTime: '1' })).toBe(false);
  expect(processStat(999_999_999)).toBeUndefined();
});
