// What a backup asks of QEMU, by a scripted monitor.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BackupTarget } from '../../../../src/host/vm/hypervisor.js';
import { PlainQemu } from '../../../../src/host/vm/plain-qemu.js';
import { Reverter } from '../../../../src/reverter.js';
import { FakeMonitor } from '../../../support/fake-monitor.js';
import { scratch, type Scratch } from '../../../support/scratch.js';
import { vmDisk } from '../../../support/vm-disks.js';

let folder: Scratch;
let fake: FakeMonitor;
let qemu: PlainQemu;
let nodes: object[];
const bitmap = (name: string | undefined, over: object = {}): object => ({
  ...(name === undefined ? {} : { name }),
  ...{ count: 65_536, granularity: 65_536, recording: true, busy: false, persistent: true },
  ...over,
});
const node = (name: string, drv: string, bitmaps: object[] = [], over: object = {}): object => ({
  ...{ 'node-name': name, drv, ro: false, file: '/img', detect_zeroes: 'off' },
  cache: { writeback: true, direct: false, 'no-flush': false },
  image: { filename: '/img', format: drv, 'virtual-size': 1 },
  'dirty-bitmaps': bitmaps,
  ...over,
});
const target = (id: string, since?: string): BackupTarget => ({
  disk: vmDisk(id),
  ...{ file: `/repo/${id}.qcow2`, node: `to-${id}`, jobId: `job-${id}`, checkpoint: 'new', since },
  ...{ speed: undefined, compress: false },
});
const sent = (): unknown => fake.received.findLast(({ execute }) => execute === 'transaction')?.arguments;

beforeEach(async () => {
  folder = scratch();
  nodes = [node('node-a', 'qcow2', [bitmap('old')]), node('node-b', 'raw')];
  fake = await FakeMonitor.listen(folder.path('q'), {
    handlers: {
      'query-named-block-nodes': () => nodes,
      'blockdev-add': () => ({}),
      'block-dirty-bitmap-remove': () => ({}),
      transaction: () => ({}),
    },
  });
  qemu = await PlainQemu.connect(fake.path, {});
});
afterEach(async () => {
  await qemu[Symbol.asyncDispose]();
  await fake[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});
const cut = async (...targets: readonly BackupTarget[]): Promise<void> => {
  await qemu.backups.openTargets(targets, new Reverter());
  await qemu.cut(
    targets.map((each) => ({ type: 'backup' as const, target: each })),
    1000,
  );
};

describe('the transaction', () => {
  test('adds a bitmap and a job for each disk, and keeps the bitmap that an increment is over', async () => {
    await cut(target('a', 'old'), target('b'));
    const job = { 'auto-finalize': false, 'auto-dismiss': false };
    const over = { sync: 'bitmap', bitmap: 'old', 'bitmap-mode': 'never' };
    const bitmaps = { name: 'new', granularity: 65_536 };
    expect(sent()).toEqual({
      actions: [
        { type: 'block-dirty-bitmap-add', data: { node: 'node-a', ...bitmaps, persistent: true } },
        { type: 'blockdev-backup', data: { 'job-id': 'job-a', device: 'node-a', target: 'to-a', ...over, ...job } },
        { type: 'block-dirty-bitmap-add', data: { node: 'node-b', ...bitmaps, persistent: false } },
        {
          type: 'blockdev-backup',
          data: { 'job-id': 'job-b', device: 'node-b', target: 'to-b', sync: 'full', ...job },
        },
      ],
    });
  });

  test('lets no write of the guest go on that was not saved before, whatever QEMU could', async () => {
    // As QEMU 10.1 says it.
    fake.handlers['query-qmp-schema'] = () => [
      { name: 'blockdev-backup', 'meta-type': 'command', 'arg-type': '9' },
      { name: '9', 'meta-type': 'object', members: [{ name: 'on-cbw-error', type: '2' }] },
    ];
    await cut(target('a'));
    expect(JSON.stringify(sent())).not.toContain('on-cbw-error');
  });
});

test('tells which checkpoints can be relied on', async () => {
  nodes = [
    node('node-a', 'qcow2', [
      bitmap('good'),
      bitmap('broken', { inconsistent: true, recording: false }),
      bitmap('off', { recording: false }),
      bitmap('used', { busy: true }),
      bitmap(undefined),
    ]),
  ];
  const found = await qemu.backups.checkpoints(vmDisk('a'));
  expect(found.map(({ name, why }) => [name, why === undefined])).toEqual([
    ['good', true],
    ['broken', false],
    ['off', false],
    ['used', false],
  ]);
});

test('forgets checkpoints wherever they are, but on layers that are only read, and tells of those in use', async () => {
  nodes = [
    node('node-a', 'qcow2', [bitmap('mine'), bitmap('theirs')]),
    node('below', 'qcow2', [bitmap('mine')], { ro: true }),
    node('node-b', 'raw', [bitmap('mine', { busy: true })]),
  ];
  await expect(qemu.backups.dropCheckpoints((name) => name === 'mine')).rejects.toThrow(
    'dirty bitmaps are in use: mine',
  );
  const removed = fake.received.filter(({ execute }) => execute === 'block-dirty-bitmap-remove');
  expect(removed.map((each) => each.arguments)).toEqual([{ node: 'node-a', name: 'mine' }]);
});
