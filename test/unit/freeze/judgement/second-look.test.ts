// When a session looks at the mount table again, and how much of it: whole looks while nobody waits, a quick one while
// writers are held, the last one when they are released.
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { machineViewer } from '../../../../src/linux/machine-view.js';
import { described, FreezeHarness } from '../../../support/freeze-harness.js';

let harness: FreezeHarness;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const request = { requester: 'test', leaseMs: 10_000, require: 'crash' } as const;

test('whole at the plan, again before writers are held, quickly before FIFREEZE, and last after their release', async () => {
  const look = machineViewer(harness.machine);
  const coordinator = await harness.start(
    {},
    {
      async view(extent = 'whole') {
        appendFileSync(harness.journalPath, `look ${extent}\n`);
        return await look(extent);
      },
    },
  );
  harness.hook('db', `${described({ phases: 'prepare freeze verify thaw' })}log`);
  const session = await coordinator.freeze({ ...request, disks: [{ serial: 'DATA' }] });
  await session.thaw();
  expect(harness.journal).toEqual([
    'look whole',
    'prepare db',
    'look changes',
    'freeze db',
    'verify db',
    'look held',
    'FIFREEZE /data',
    'FITHAW /data',
    'verify db',
    'thaw db',
    'look changes',
  ]);
});

test('a filesystem that is mounted while writers are held is told of: with a long table after the release', async () => {
  const coordinator = await harness.start();
  const { mountinfoPath } = harness.machine;
  const bind = `200 30 ${harness.disks.root.device} /x /x rw,relatime - ext4 /dev/vda rw\n`;
  const late = `99 30 ${harness.machine.virtioDisk('vdc', 4).device} / /late rw - ext4 /dev/vdc rw`;
  harness.hook(
    'late',
    `${described({ phases: 'freeze verify thaw' })}[ "$1" != freeze ] || echo '${late}' >>'${mountinfoPath}'`,
  );
  const what = '/late (ext4) was mounted after the session was planned';
  const before = readFileSync(mountinfoPath);

  const short = await coordinator.freeze(request);
  expect(short.report.evidence.at(-1)).toBe(what);
  await short.thaw();

  writeFileSync(mountinfoPath, `${before.toString()}${bind.repeat(20_000)}`);
  const long = await coordinator.freeze(request);
  expect(long.report.evidence).not.toContain(what);
  expect(await long.thaw()).toMatchObject({
    outcome: 'ok',
    level: 'crash',
    evidence: expect.arrayContaining([what]) as string[],
  });
});

test('one more mount of a filesystem that is known is no change', async () => {
  const coordinator = await harness.start();
  const { mountinfoPath } = harness.machine;
  const bind = `200 30 ${harness.disks.root.device} /x /x rw,relatime - ext4 /dev/vda rw`;
  harness.hook('bind', `${described({ phases: 'freeze verify thaw' })}echo '${bind}' >>'${mountinfoPath}'`);
  const session = await coordinator.freeze({ ...request, require: 'filesystem' });
  expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
  expect(readFileSync(mountinfoPath, 'utf8')).toContain(bind);
});
