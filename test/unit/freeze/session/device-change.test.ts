import { afterEach, beforeEach, expect, test } from 'vitest';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CoordinatorOptions } from '../../../../src/freeze/options.js';
import { lockForChange } from '../../../../src/freeze/session/device-change.js';
import { FreezeHarness } from '../../../support/freeze-harness.js';

let harness: FreezeHarness;
/** The lock is taken of whoever answers; the program is only looked at. */
let options: CoordinatorOptions;
beforeEach(() => {
  harness = new FreezeHarness();
  options = { ...harness.options, freezerPath: '/bin/false' };
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const request = { requester: 'host tool', leaseMs: 10_000, require: 'filesystem' } as const;

test('a session waits for a change that is under way, and is as good as any', async () => {
  const coordinator = await harness.start();
  const unlock = await lockForChange(options, 'vg/s', 1_000);
  let isHeld = false;
  const freezing = coordinator.freeze(request).then((session) => {
    isHeld = true;
    return session;
  });
  await sleep(150);
  expect(isHeld).toBe(false);
  await unlock();
  const session = await freezing;
  expect(harness.freezer.frozen).toHaveLength(2);
  expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'filesystem' });
});

test('a session that is told to end meanwhile waits no longer', async () => {
  const coordinator = await harness.start();
  const unlock = await lockForChange(options, 'vg/s', 1_000);
  const abort = new AbortController();
  setTimeout(() => {
    abort.abort();
  }, 50);
  await expect(coordinator.freeze(request, abort.signal)).rejects.toThrow();
  await unlock();
  expect(harness.freezer.state).toBe('idle');
});

test('a change waits for a session, and says who holds the guest if that takes too long', async () => {
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request);
  await expect(lockForChange(options, 'vg/s', 150)).rejects.toThrow('held by host tool');
  const locking = lockForChange(options, 'vg/s', 5_000);
  await session.thaw();
  await (
    await locking
  )();
  expect(harness.freezer.state).toBe('idle');
});

test('where there is no freezer nobody has to be waited for', async () => {
  await (
    await lockForChange({ ...harness.options, freezerSocket: `${harness.dir}/none` }, 'vg/s', 1_000)
  )();
});
