// What connect(2) and a monitor give, and what it says of the VM: only two answers mean that nobody is there.
import { renameSync } from 'node:fs';
import { createServer } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ErrorCode } from '../../../../src/error-codes.js';
import { UnreachableError } from '../../../../src/errors.js';
import { meansShutOff, openMonitors, tryMonitors } from '../../../../src/host/vm/monitors.js';
import { socketAt } from '../../../../src/host/vm/place.js';
import { FakeMonitor } from '../../../support/fake-monitor.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});

test.each<[ErrorCode, string, boolean]>([
  ['E_MONITOR', 'ENOENT', true],
  ['E_MONITOR', 'ECONNREFUSED', true],
  ['E_MONITOR_UNKNOWN', 'EAGAIN', false],
  ['E_MONITOR_UNKNOWN', 'EACCES', false],
  ['E_MONITOR_UNKNOWN', 'ENOTDIR', false],
  ['E_MONITOR_SILENT', '', false],
  ['E_MONITOR_PROTOCOL', '', false],
])('%s %s: shut off: %s', async (code, errno, off) => {
  const error = new UnreachableError(code, 'no', { facts: { errno } });
  expect(await meansShutOff(error, socketAt(folder.path('no.sock')))).toBe(off);
});

test('a name that is refused, but that a living process has bound, is not free', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(folder.path('qmp.sock'), resolve);
  });
  const refused = new UnreachableError('E_MONITOR', 'no', { facts: { errno: 'ECONNREFUSED' } });
  expect(await meansShutOff(refused, socketAt(folder.path('qmp.sock')))).toBe(false);
  // Bound under the first name, and that is what the kernel tells.
  renameSync(folder.path('qmp.sock'), folder.path('moved.sock'));
  expect(await meansShutOff(refused, socketAt(folder.path('qmp.sock')))).toBe(false);
  await new Promise((resolve) => server.close(resolve));
  expect(await meansShutOff(refused, socketAt(folder.path('qmp.sock')))).toBe(true);
});

test("another VM's monitor is not this one's, and nobody else is there", async () => {
  const uuid = '11111111-2222-3333-4444-555555555555';
  await using fake = await FakeMonitor.listen(folder.path('qmp.sock'), {
    handlers: { 'query-uuid': () => ({ UUID: uuid }) },
  });
  await using own = await openMonitors([socketAt(fake.path)], 1000, { kind: 'uuid', uuid });
  expect(own.open).toHaveLength(1);
  await own[Symbol.asyncDispose]();
  const other = { kind: 'uuid', uuid: 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee' } as const;
  await using none = await openMonitors([socketAt(fake.path)], 1000, other);
  expect(none.open).toHaveLength(0);
});

test('one that is silent beside one that answers is no reason to give up; alone it is', async () => {
  await using fake = await FakeMonitor.listen(folder.path('qmp.sock'), {});
  const silent = createServer();
  await new Promise<void>((resolve) => {
    silent.listen(folder.path('silent.sock'), resolve);
  });
  try {
    await using both = await openMonitors([socketAt(folder.path('silent.sock')), socketAt(fake.path)], 200);
    expect(both).toMatchObject({ open: [{ path: fake.path }], silent: [{ code: 'E_MONITOR_SILENT' }] });
    await expect(openMonitors([socketAt(folder.path('silent.sock'))], 200)).rejects.toMatchObject({
      code: 'E_MONITOR_SILENT',
    });
    await using tried = await tryMonitors(
      [socketAt(folder.path('silent.sock')), socketAt(folder.path('none.sock'))],
      200,
    );
    expect(tried).toMatchObject({ open: [], silent: [{}] });
  } finally {
    await new Promise((resolve) => silent.close(resolve));
  }
});
