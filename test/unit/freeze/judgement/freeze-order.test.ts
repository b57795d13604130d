// What the plan leaves out, and what fails to freeze, from the request to the label, over a fake machine and a fake
// freezer. The plan itself: plan.test.ts; the same against the kernel: test/integration/freeze-order.test.ts.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FreezeReport, FreezeRequest } from '../../../../src/consistency.js';
import { QuiesceError } from '../../../../src/errors.js';
import { thawMarked } from '../../../../src/freeze/freezer/process.js';
import { markerFiles } from '../../../../src/freeze/freezer/markers.js';
import { noRules } from '../../../../src/freeze/judgement/rules.js';
import { untilThawed } from '../../../../src/freeze/freezer/until-thawed.js';
import { FreezeHarness } from '../../../support/freeze-harness.js';

let harness: FreezeHarness;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const request = (more: Partial<FreezeRequest> = {}): FreezeRequest => ({
  requester: 'test',
  leaseMs: 5_000,
  require: 'crash',
  ...more,
});
const failed = async (attempt: Promise<unknown>): Promise<{ error: QuiesceError; report: FreezeReport }> => {
  const error = await attempt.catch((reason: unknown) => reason);
  if (!(error instanceof QuiesceError)) throw error;
  return { error, report: error.facts['report'] as FreezeReport };
};
const asked = (): string[] =>
  readFileSync(harness.journalPath, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('freezer '))
    .map((line) => line.slice('freezer '.length));

test('what a rule takes out is not opened, and its disk is crash; another disk is not lowered by it', async () => {
  const coordinator = await harness.start({}, { rules: { ...noRules, excludeTypes: ['xfs'] } });
  const session = await coordinator.freeze(request());
  expect(harness.freezer.frozen).toEqual(['/']);
  const report = await session.thaw();
  const reason = 'excluded by configuration (exclude-types: xfs)';
  expect(report).toMatchObject({ outcome: 'ok', level: 'crash', skipped: [{ what: '/data', reason }] });
  expect(report.evidence.at(-1)).toBe(`/data (xfs) was not held: ${reason}`);
  expect(asked().filter((line) => line.startsWith('fs '))).toHaveLength(1);

  const { error } = await failed(coordinator.freeze(request({ require: 'auto' })));
  expect(error.message).toContain(reason);
  const root = await coordinator.freeze(request({ require: 'filesystem', disks: [{ serial: 'ROOT' }] }));
  expect(await root.thaw()).toMatchObject({ outcome: 'ok', level: 'filesystem' });
});

test('a filesystem that takes too long is given up: named with its limit, all thawed', async () => {
  const coordinator = await harness.start({ late: ['/data'] }, { freezeLimitMs: 150 });
  const { error, report } = await failed(coordinator.freeze(request()));
  expect(error.message).toContain('not frozen within 150 ms, given up: /data');
  expect(asked()).toContain('freeze 5000 150');
  expect(harness.journal.slice(-2)).toEqual(['FITHAW /data', 'FITHAW /']);
  expect(report).toMatchObject({ outcome: 'failed', level: 'none', state: 'thawed' });
  const of = (mountpoint: string) => report.filesystems.find((one) => one.mountpoint === mountpoint);
  expect(of('/data')).toMatchObject({ held: 'none', reason: 'its freeze took too long', thawErrno: 0 });
  expect(of('/')).toMatchObject({ freezeErrno: 0, thawErrno: 0 });
});

test('one that fails names itself and its errno in words', async () => {
  const coordinator = await harness.start({ freezeErrno: { '/data': 5 } });
  for (const require of ['filesystem', 'plain'] as const) {
    const { error, report } = await failed(coordinator.freeze(request({ require })));
    expect(error.message).toMatch(/\/data\b.*EIO \(i\/o error\)/);
    expect(report).toMatchObject({ outcome: 'failed', state: 'thawed' });
  }
});

test('another mount is opened where the first is none that can be; without one it is said why', async () => {
  const { device } = harness.disks.data;
  harness.machine.mount({ device, mountpoint: '/etc/file', root: '/file', type: 'xfs', source: '/dev/vdb' });
  const coordinator = await harness.start({ openErrno: { '/data': 20 } });
  const session = await coordinator.freeze(request({ require: 'filesystem' }));
  expect([...harness.freezer.frozen].sort()).toEqual(['/', '/etc/file']);
  expect(await session.thaw()).toMatchObject({ level: 'filesystem' });

  await harness.restartFreezer({ openErrno: { '/data': 20, '/etc/file': 20 } });
  const { error, report } = await failed(coordinator.freeze(request({ require: 'filesystem' })));
  expect(error.message).toContain('/data (xfs) was not held: not opened');
  expect(report.filesystems.find(({ mountpoint }) => mountpoint === '/data')).toMatchObject({ held: 'none' });
});

test('a filesystem of another mount namespace on a disk of the cut: not touched, named, crash', async () => {
  const procRoot = join(harness.dir, 'proc');
  const processOf = (pid: string, namespace: number, mountinfo: string): void => {
    mkdirSync(join(procRoot, pid, 'ns'), { recursive: true });
    symlinkSync(`mnt:[${namespace}]`, join(procRoot, pid, 'ns/mnt'));
    writeFileSync(join(procRoot, pid, 'comm'), 'container\n');
    writeFileSync(join(procRoot, pid, 'mountinfo'), mountinfo);
  };
  const { device } = harness.machine.virtioDisk('vdc', 4, 'OTHER');
  processOf('self', 1, '');
  processOf('77', 2, `20 1 ${device} / /volume rw - ext4 /dev/vdc rw\n`);
  const coordinator = await harness.start({}, { procRoot });
  const all = await coordinator.freeze(request());
  expect(harness.freezer.frozen).toEqual(['/data', '/']);
  const report = await all.thaw();
  const what = join(procRoot, '77/root/volume');
  const reason = 'mounted in the mount namespace of process 77 (container) alone, not touched';
  expect(report).toMatchObject({ outcome: 'ok', level: 'crash', skipped: [{ what, reason }] });
  expect(report.evidence).toContain(`${what} (ext4) was not held: ${reason}`);
  const levelOf = async (serial: string): Promise<string> => {
    const session = await coordinator.freeze(request({ disks: [{ serial }] }));
    return (await session.thaw()).level;
  };
  expect([await levelOf('ROOT'), await levelOf('OTHER')]).toEqual(['filesystem', 'crash']);
});

test('one that is mounted elsewhere after the plan was made lowers the label', async () => {
  const procRoot = join(harness.dir, 'proc');
  mkdirSync(join(procRoot, 'self/ns'), { recursive: true });
  symlinkSync('mnt:[1]', join(procRoot, 'self/ns/mnt'));
  harness.machine.virtioDisk('vdc', 4, 'OTHER');
  const coordinator = await harness.start({}, { procRoot });
  const session = await coordinator.freeze(request());
  mkdirSync(join(harness.machine.sysRoot, 'fs/ext4/vdc'), { recursive: true });
  const report = await session.thaw();
  expect(report).toMatchObject({ outcome: 'ok', level: 'crash' });
  expect(report.evidence.at(-1)).toBe('/dev/vdc (ext4) was mounted after the session was planned');
});

test('markers that were set aside count: something may be frozen until they are gone', async () => {
  const markerPath = join(harness.dir, 'run/frozen');
  const aside = `${markerPath}.left-12-34`;
  expect(markerFiles(markerPath)).toEqual([]);
  for (const path of [markerPath, aside, `${aside}.new`, `${markerPath}.damaged`])
    writeFileSync(path, 'fsfreeze-bridge 1 12 34 stuck -\n');
  expect(markerFiles(markerPath)).toEqual([markerPath, aside]);

  const freezerPath = join(harness.dir, 'thaw-marked');
  writeFileSync(freezerPath, `#!/bin/sh\nrm '${markerPath}'\necho '/data is stuck' >&2\nexit 1\n`, { mode: 0o755 });
  const places = { socketPath: join(harness.dir, 'run/none.sock'), markerPath, freezerPath };
  await expect(thawMarked(places)).rejects.toThrow('/data is stuck');
  expect(markerFiles(markerPath)).toEqual([aside]);

  // A newer session's marker says nothing of the older one.
  writeFileSync(markerPath, 'fsfreeze-bridge 1 56 78 newer -\n');
  let done = false;
  const waiting = untilThawed({ ...places, freezerPath: undefined }, 'stuck').then(() => {
    done = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(done).toBe(false);
  writeFileSync(aside, 'fsfreeze-bridge 1 12 34 another -\n');
  await waiting;
});
