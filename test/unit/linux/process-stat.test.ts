// A process is named by its pid and its start time.
import { expect, test } from 'vitest';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { OpenProcessStat, processStat, stillRuns } from '../../../src/linux/process-stat.js';

test('a process is the one with its start time', () => {
  const { startTime = '' } = processStat(process.pid) ?? {};
  expect(stillRuns({ pid: process.pid, startTime })).toBe(true);
  expect(stillRuns({ pid: process.pid, startTime: '1' })).toBe(false);
  expect(processStat(999_999_999)).toBeUndefined();
});

test('one that is kept open tells of the end of its process before anybody has waited for it', async () => {
  const child = spawn('sleep', ['600'], { stdio: 'ignore' });
  const pid = child.pid ?? NaN;
  using kept = closing(new OpenProcessStat(pid));
  expect(kept.stat.startTime).toBe(processStat(pid)?.startTime);
  expect(kept.stat.runs).toBe(true);
  const exit = once(child, 'exit');
  process.kill(pid, 'SIGKILL');
  // The event loop does not get a turn: the child is a zombie, that Node has not heard of.
  const endMs = performance.now() + 5_000;
  while (kept.stat.runs && performance.now() < endMs);
  expect(processStat(pid)?.state).toBe('Z');
  expect(kept.stat.runs).toBe(false);
  await exit;
  expect(kept.stat.runs).toBe(false);
});

test('of no process there is nothing to keep', () => {
  using kept = closing(new OpenProcessStat(999_999_999));
  expect([kept.stat.runs, kept.stat.startTime]).toEqual([false, '']);
});

function closing(stat: OpenProcessStat): { readonly stat: OpenProcessStat } & Disposable {
  return {
    stat,
    [Symbol.dispose]() {
      stat.close();
    },
  };
}
