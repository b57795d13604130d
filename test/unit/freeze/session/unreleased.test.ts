// Writers that do not let go, on a clock of the test's own; and those that a dead process beside the agent held.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { findWriters } from '../../../../src/freeze/writers/folders.js';
import { SessionRecord } from '../../../../src/freeze/writers/record.js';
import { UnreleasedWriters, type LeftWriters } from '../../../../src/freeze/session/unreleased.js';
import { described, FreezeHarness } from '../../../support/freeze-harness.js';

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

test('are those, too, that a rehearsal held when it was killed: they let go after the next session', async () => {
  vi.useRealTimers();
  await using harness = new FreezeHarness();
  harness.hook('w', `${described({})}case $1 in thaw) log "$FSFREEZE_SESSION" ;; esac`);
  const coordinator = await harness.start();
  await coordinator.warmUp();
  const runtimeDir = join(harness.dir, 'run');
  const head = { session: 'rehearsal-1', requester: 'somebody', leaseMs: 1_000, mountpoints: [] };
  const record = SessionRecord.create(runtimeDir, head);
  const [writer] = findWriters(harness.folders);
  if (writer === undefined) throw new Error('no writer');
  record.scratch('w');
  record.noteStarted([{ writer, limitMs: 1_000 }]);
  const path = join(record.dir, 'head.json');
  writeFileSync(path, readFileSync(path, 'utf8').replace(/"startTime":"\d+"/, '"startTime":"1"'));

  const session = await coordinator.freeze({ requester: 'test', session: 's1', leaseMs: 5_000, require: 'auto' });
  expect(coordinator.unreleased).toMatchObject([{ session: 'rehearsal-1', name: 'w' }]);
  expect((await session.thaw()).level).toBe('application');
  await expect.poll(() => coordinator.unreleased, { timeout: 10_000 }).toEqual([]);
  expect(harness.journal.filter((line) => line.startsWith('thaw'))).toEqual(['thaw w s1', 'thaw w rehearsal-1']);
  await expect.poll(() => existsSync(record.dir)).toBe(false);
});
