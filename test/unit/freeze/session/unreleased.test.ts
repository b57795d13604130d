// Writers that do not let go, on a clock of the test's own.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { SessionRecord } from '../../../../src/freeze/writers/record.js';
import { UnreleasedWriters, type LeftWriters } from '../../../../src/freeze/session/unreleased.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('are tried again after a try that could not even start a program, and the notes go when they are released', async () => {
  const told: string[] = [];
  const log = { info: vi.fn(), warn: (_: object, text: string) => void told.push(text), error: vi.fn() };
  const remove = vi.fn();
  const held = ['10-app'];
  const retry = vi
    .fn<() => Promise<void>>()
    .mockRejectedValueOnce(new Error('spawn EMFILE'))
    .mockImplementation(() => {
      held.pop();
      return Promise.resolve();
    });
  const unreleased = new UnreleasedWriters(log as never);
  unreleased.add({
    session: 's',
    outcome: 'ok',
    writers: { retry, unreleased: held, releases: [] } as unknown as LeftWriters['writers'],
    record: { remove } as unknown as SessionRecord,
    settled: Promise.resolve(),
  });
  await vi.advanceTimersByTimeAsync(1_100);
  expect(told).toEqual(['writers cannot be released now: spawn EMFILE', 'still not released: 10-app']);
  expect(remove).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(2_100);
  expect(retry).toHaveBeenCalledTimes(2);
  expect(remove).toHaveBeenCalledOnce();
  await unreleased.pause();
});
