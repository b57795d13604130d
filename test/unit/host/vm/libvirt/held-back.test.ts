// A job that stands still is held back for its rate, or it hangs.
import { expect, test } from 'vitest';
import { isHeldBack } from '../../../../../src/host/vm/libvirt/held-back.js';
import type { Monitor } from '../../../../../src/qmp/monitor.js';

const job = { device: 'backup-vda', type: 'backup', status: 'running', offset: 5001, speed: 1000, paused: false };
const heldBack = async (over: Partial<typeof job>): Promise<boolean> =>
  await isHeldBack({ execute: () => Promise.resolve([{ ...job, ...over }]) } as unknown as Monitor, 5000);

test('until the time has passed that its bytes take by its rate', async () => {
  expect(await heldBack({})).toBe(true);
  expect(await heldBack({ offset: 5000 })).toBe(false);
});

test.each([
  ['no rate', { speed: 0 }],
  ['a pause', { paused: true }],
  ['another kind of job', { type: 'mirror' }],
])('not with %s', async (_what, over) => {
  expect(await heldBack(over)).toBe(false);
});
