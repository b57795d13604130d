// Filesystems that are left to the requester's provider: held by the writers, never frozen, and judged for no more than
// is known of them. A fake machine and a fake freezer.
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { FreezeRequest } from '../../../../src/consistency.js';
import { described, FreezeHarness } from '../../../support/freeze-harness.js';

let harness: FreezeHarness;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const request = (more: Partial<FreezeRequest> = {}): FreezeRequest => ({
  requester: 'fsfreeze-snapshot',
  leaseMs: 5_000,
  require: 'auto',
  ...more,
});
const writer = `${described({})}log $FSFREEZE_MOUNTPOINTS`;

test('one of two is not frozen, and takes the level to crash; without it, it would be application', async () => {
  harness.hook('w', writer);
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ leave: ['/data'] }));
  expect(harness.freezer.frozen).toEqual(['/']);
  expect(session.frozenCount).toBe(1);
  expect(session.report).toMatchObject({ level: 'crash', levelWithProvider: 'application', outcome: 'ok' });
  const report = await session.thaw();
  expect(report).toMatchObject({ state: 'thawed', level: 'crash', levelWithProvider: 'application', outcome: 'ok' });
  const held = Object.fromEntries(report.filesystems.map(({ mountpoint, held: how }) => [mountpoint, how]));
  expect(held).toEqual({ '/data': 'provider', '/': 'frozen' });
  expect(report.evidence.at(-1)).toBe('/data (xfs) was left to its provider: whether that held it is not known here');
  // Its writers hold for it.
  expect(harness.journal.find((line) => line.startsWith('freeze w'))).toContain('/data');
  expect(harness.journal).not.toContain('FIFREEZE /data');
});

test('all of them are held by the writers alone, for a lease', async () => {
  harness.hook('w', writer);
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ leave: ['/', '/data'], leaseMs: 300 }));
  expect(harness.freezer.frozen).toEqual([]);
  expect(await coordinator.status()).toMatchObject({ state: 'frozen' });
  expect(session.holdsWriters).toBe(true);
  const report = await session.ended;
  expect(report).toMatchObject({ outcome: 'expired', level: 'crash', levelWithProvider: 'crash' });
  expect(harness.journal.at(-1)).toMatch(/^thaw w/);
});

test('one that recovers by itself is held where several are cut one after another, and only there', async () => {
  const header = described({ phases: 'prepare verify', guarantee: 'recoverable', apart: 'held' });
  harness.hook('w', header);
  const coordinator = await harness.start();
  const of = async (leave: readonly string[]) => {
    const session = await coordinator.freeze(request({ mountpoints: ['/', '/data'], leave: [...leave] }));
    const { writers } = await session.thaw();
    const [{ guarantee, verdict, phases } = { phases: [] }] = writers;
    return { guarantee, verdict, phases: phases.map(({ phase }) => phase) };
  };
  const phases = ['prepare', 'freeze', 'verify', 'verify', 'thaw'];
  expect(await of(['/data'])).toEqual({ guarantee: 'held', verdict: 'verified', phases });
  expect(await of([])).toEqual({
    guarantee: 'recoverable',
    verdict: 'verified',
    phases: ['prepare', 'verify', 'verify'],
  });
});

test('a level is required of all the rest: a writer that only claims refuses application', async () => {
  harness.hook('w', 'exit 0');
  const coordinator = await harness.start();
  await expect(coordinator.freeze(request({ leave: ['/data'], require: 'application' }))).rejects.toThrow(
    'level application required, at most filesystem can be had: writer w only claimed to hold',
  );
  const session = await coordinator.freeze(request({ leave: ['/data'], require: 'filesystem' }));
  expect(await session.thaw()).toMatchObject({ level: 'crash', levelWithProvider: 'filesystem' });
});

test('only what is asked for can be left: another mount point, or none, is refused before anything is held', async () => {
  harness.hook('w', writer);
  const coordinator = await harness.start();
  for (const leave of [['/nowhere'], ['/data']])
    await expect(coordinator.freeze(request({ mountpoints: ['/'], leave }))).rejects.toThrow(
      `leave: expected mount points among those asked for, found ${leave.join()}`,
    );
  expect(harness.journal).toEqual([]);
  const session = await coordinator.freeze(request({ mountpoints: ['/', '/data'], leave: ['/data'] }));
  expect(harness.freezer.frozen).toEqual(['/']);
  await session.thaw();
});

test('without anything left there is no second level', async () => {
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ leave: [] }));
  expect(session.report).not.toHaveProperty('levelWithProvider');
  await session.thaw();
});
