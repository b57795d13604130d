// What a backup asks of QEMU, by a scripted monitor.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LuksKey } from '../../../../src/host/images/luks-key.js';
import type { BackupTarget } from '../../../../src/host/vm/hypervisor.js';
import { PlainQemu } from '../../../../src/host/vm/plain-qemu.js';
import { Reverter } from '../../../../src/reverter.js';
import { FakeMonitor, Refusal, type Received } from '../../../support/fake-monitor.js';
import { scratch, type Scratch } from '../../../support/scratch.js';
import { vmDisk } from '../../../support/vm-disks.js';

let folder: Scratch;
let fake: FakeMonitor;
let qemu: PlainQemu;
let nodes: object[];
let status: string;
let jobs: { id: string; status: string }[];
let migration: object;
let sendsBitmaps: boolean;
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
  ...{ file: `/repo/${id}.qcow2`, key: undefined, node: `to-${id}`, jobId: `job-${id}`, checkpoint: 'new', since },
  ...{ speed: undefined, compress: false },
});
const sent = (): unknown => fake.received.findLast(({ execute }) => execute === 'transaction')?.arguments;

beforeEach(async () => {
  folder = scratch();
  nodes = [node('node-a', 'qcow2', [bitmap('old')]), node('node-b', 'raw')];
  status = 'running';
  jobs = [];
  migration = {};
  sendsBitmaps = false;
  fake = await FakeMonitor.listen(folder.path('q'), {
    handlers: {
      'query-named-block-nodes': () => nodes,
      'query-status': () => ({ status, running: status === 'running' }),
      'query-jobs': () => jobs,
      'query-migrate': () => migration,
      'query-migrate-capabilities': () => [{ capability: 'dirty-bitmaps', state: sendsBitmaps }],
      'query-qmp-schema': () => [],
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

  test('has few pieces under way, where QEMU can be told', async () => {
    fake.handlers['query-qmp-schema'] = () => [
      { name: 'blockdev-backup', 'meta-type': 'command', 'arg-type': '9' },
      { name: '9', 'meta-type': 'object', members: [{ name: 'x-perf', default: null, type: '2' }] },
    ];
    await cut(target('a'));
    expect(sent()).toMatchObject({ actions: [{}, { data: { 'x-perf': { 'max-workers': 4 } } }] });
  });
});

describe('the host’s page cache', () => {
  const opened = (): unknown[] =>
    fake.received.filter(({ execute }) => execute === 'blockdev-add').map(({ arguments: of }) => of?.['cache']);
  const cache = (direct: boolean): object => ({ direct, 'no-flush': false });

  test('is passed by, but not by what is compressed', async () => {
    await qemu.backups.openTargets([target('a'), { ...target('b'), compress: true }], new Reverter());
    expect(opened()).toEqual([cache(true), cache(false)]);
  });

  test('is used where the filesystem has nothing else', async () => {
    fake.handlers['blockdev-add'] = ({ arguments: of }: Received) => {
      if (JSON.stringify(of?.['cache']).includes('true'))
        throw new Refusal('Could not open /repo/a.qcow2: filesystem does not support O_DIRECT');
      return {};
    };
    await qemu.backups.openTargets([target('a')], new Reverter());
    expect(opened()).toEqual([cache(true), cache(false)]);
  });
});

describe('a key', () => {
  const key = new LuksKey(Buffer.from('a passphrase\n'), 'a test');
  let objects: string[];
  beforeEach(() => {
    objects = [];
    Object.assign(fake.handlers, {
      'object-add': ({ arguments: given }: Received) => {
        objects.push(String(given?.['id']));
        return {};
      },
      'object-del': ({ arguments: given }: Received) => {
        objects = objects.filter((id) => id !== given?.['id']);
        return {};
      },
      'qom-get': ({ arguments: given }: Received) => {
        if (objects.some((id) => given?.['path'] === `/objects/${id}`)) return 'secret';
        throw new Refusal('not found');
      },
    });
  });
  const log = (): string[] => fake.commands.filter((name) => /^(object-|blockdev-add)/.test(name));

  test('is in QEMU for as long as its file is opened, and no longer', async () => {
    await qemu.backups.openTargets([{ ...target('a'), key }], new Reverter());
    expect(log()).toEqual(['object-add', 'blockdev-add', 'object-del']);
    const given = fake.received.filter(({ execute }) => /^(object|blockdev)-add$/.test(execute));
    expect(given.map(({ arguments: of }) => of)).toMatchObject([
      { 'qom-type': 'secret', id: 'to-a-key', data: 'a passphrase\n' },
      {
        ...{ driver: 'qcow2', 'node-name': 'to-a', backing: null },
        file: {
          ...{ driver: 'luks', 'node-name': 'to-a-file', 'key-secret': 'to-a-key' },
          file: { driver: 'file', filename: '/repo/a.qcow2' },
        },
      },
    ]);
  });

  test('is removed if its file cannot be opened, and if the tool was killed', async () => {
    fake.handlers['blockdev-add'] = () => {
      throw new Refusal('Invalid password, cannot unlock any keyslot');
    };
    const reverter = new Reverter();
    const opening = qemu.backups.openTargets([{ ...target('a'), key }], reverter);
    await expect(opening).rejects.toMatchObject({ code: 'E_BACKUP' });
    expect(objects).toEqual(['to-a-key']);
    await reverter.revert();
    expect(objects).toEqual([]);
    objects = ['to-a-key', 'of-others'];
    await qemu.backups.end([target('a')]);
    expect(objects).toEqual(['of-others']);
  });
});

describe('the end of the jobs', () => {
  const begin = async (): Promise<void> => {
    await qemu.backups.openTargets([target('a')], new Reverter());
    nodes.push(node('to-a', 'qcow2'));
    jobs = [{ id: 'job-a', status: 'pending', ...{ type: 'backup', 'current-progress': 4, 'total-progress': 4 } }];
    Object.assign(fake.handlers, {
      'job-finalize': () => {
        jobs = jobs.map((job) => ({ ...job, status: 'concluded' }));
        return {};
      },
      'job-cancel': () => {
        jobs = jobs.map((job) => ({ ...job, status: 'concluded' }));
        return {};
      },
      'job-dismiss': () => {
        jobs = [];
        return {};
      },
      'blockdev-reopen': () => ({}),
      'blockdev-del': () => ({}),
    });
  };
  const transfer = async (beforeFlush = () => Promise.resolve()): Promise<readonly number[]> =>
    await qemu.backups.transfer([target('a')], {
      ...{ signal: new AbortController().signal, stallMs: 5000, finalizeMs: 5000, beforeFlush },
      onProgress: () => undefined,
    });
  const acts = (): string[] => fake.commands.filter((name) => /^(job-|blockdev-(reopen|del)|cont$)/.test(name));

  test('flushes each target before it is closed, when the jobs let go of the guest', async () => {
    await begin();
    let seen: string[] = [];
    const copied = await transfer(() => {
      seen = acts();
      return Promise.resolve();
    });
    expect(copied).toEqual([4]);
    expect(seen).toEqual(['job-finalize', 'job-dismiss']);
    expect(acts()).toEqual(['job-finalize', 'job-dismiss', 'blockdev-reopen', 'blockdev-del']);
    const { options } = fake.received.find(({ execute }) => execute === 'blockdev-reopen')?.arguments as {
      options: object[];
    };
    expect(options).toMatchObject([{ 'node-name': 'to-a', file: 'to-a-file', backing: null, 'read-only': true }]);
  });

  test('sets the rate of jobs that run as it is told, each to its share, and only when it changes', async () => {
    await begin();
    const running = { type: 'backup', status: 'running', 'current-progress': 1, 'total-progress': 4 };
    jobs = [
      { ...running, id: 'job-a' },
      { ...running, id: 'job-b' },
    ];
    const rates = [3_000_000, 3_000_000, undefined];
    fake.handlers['block-job-set-speed'] = () => ({});
    const abort = new AbortController();
    const pace = (current: number): Promise<number | undefined> => {
      expect(current).toBe(2);
      if (rates.length === 1) abort.abort(new Error('enough'));
      return Promise.resolve(rates.shift());
    };
    const options = { stallMs: 5000, finalizeMs: 5000, beforeFlush: () => Promise.resolve(), pace };
    const targets = [{ ...target('a'), speed: 1_500_000 }, target('b')];
    await expect(
      qemu.backups.transfer(targets, { ...options, signal: abort.signal, onProgress: () => undefined }),
    ).rejects.toThrow('enough');
    expect(
      fake.received.filter(({ execute }) => execute === 'block-job-set-speed').map((each) => each.arguments),
    ).toEqual([
      { device: 'job-b', speed: 1_500_000 },
      { device: 'job-a', speed: 0 },
      { device: 'job-b', speed: 0 },
    ]);
  });

  test('a job that stands still, since QEMU holds it back for what the guest made it copy, gets twice its share', async () => {
    await begin();
    const rate = 64 * 1024 * 1024;
    const job = { type: 'backup', id: 'job-a', status: 'running', 'current-progress': 1, 'total-progress': 4 };
    const moved = { ...job, 'current-progress': 2 };
    jobs = [job];
    const abort = new AbortController();
    fake.handlers['block-job-set-speed'] = ({ arguments: given }) => {
      const { speed } = given as { speed: number };
      if (speed >= 4 * rate) jobs = [moved];
      else if (speed === rate) abort.abort(new Error('enough'));
      return {};
    };
    const options = { stallMs: 30_000, finalizeMs: 5000, beforeFlush: () => Promise.resolve() };
    const paced = { ...options, pace: () => Promise.resolve(rate), signal: abort.signal, onProgress: () => undefined };
    await expect(qemu.backups.transfer([{ ...target('a'), speed: rate }], paced)).rejects.toThrow('enough');
    const told = fake.received.filter(({ execute }) => execute === 'block-job-set-speed');
    expect(told.map((each) => (each.arguments as { speed: number }).speed)).toEqual([2 * rate, 4 * rate, rate]);
  });

  test('a rate that comes too late for a job is no failure, one that is refused is', async () => {
    await begin();
    const refuse = (): never => {
      throw new Refusal('the job cannot');
    };
    const ended = jobs;
    const running = ended.map((job) => ({ ...job, status: 'running' }));
    jobs = running;
    fake.handlers['block-job-set-speed'] = () => {
      jobs = ended;
      refuse();
    };
    const options = {
      signal: new AbortController().signal,
      stallMs: 5000,
      finalizeMs: 5000,
      onProgress: () => undefined,
    };
    const paced = { ...options, beforeFlush: () => Promise.resolve(), pace: () => Promise.resolve(1000) };
    expect(await qemu.backups.transfer([target('a')], paced)).toEqual([4]);
    jobs = running;
    fake.handlers['block-job-set-speed'] = refuse;
    await expect(qemu.backups.transfer([target('a')], paced)).rejects.toThrow('the job cannot');
  });

  test('throws if a target cannot be flushed', async () => {
    await begin();
    fake.handlers['blockdev-reopen'] = () => {
      throw new Refusal('Error flushing drive: No space left on device');
    };
    await expect(transfer()).rejects.toMatchObject({ code: 'E_BACKUP' });
  });

  test('is no run if a write of the guest failed meanwhile', async () => {
    await begin();
    status = 'io-error';
    await expect(transfer()).rejects.toThrow('QEMU paused the VM');
    status = 'running';
    const finalize = fake.handlers['job-finalize'];
    fake.handlers['job-finalize'] = async (request, monitor) => {
      status = 'io-error';
      return await finalize?.(request, monitor);
    };
    await expect(transfer()).rejects.toThrow('QEMU paused the VM');
    expect(acts()).not.toContain('blockdev-reopen');
  });

  test('continues a VM that a write of its guest had paused', async () => {
    await begin();
    fake.handlers['cont'] = () => {
      status = 'running';
      return {};
    };
    status = 'io-error';
    expect(await qemu.backups.end([target('a')])).toBe('continued');
    expect(acts().at(-1)).toBe('cont');
  });

  test('tells of one that is paused again', async () => {
    await begin();
    fake.handlers['cont'] = () => ({});
    status = 'io-error';
    expect(await qemu.backups.end([target('a')])).toBe('still-paused');
  });

  test.each([
    ['that runs', 'running', true],
    ['that somebody paused', 'paused', true],
    ['that is not backed up any more', 'io-error', false],
  ])('leaves a VM alone %s', async (_which, now, isOpen) => {
    await begin();
    status = now;
    if (!isOpen) {
      jobs = [];
      nodes.pop();
    }
    expect(await qemu.backups.end([target('a')])).toBeUndefined();
    expect(acts()).not.toContain('cont');
  });

  test('leaves a VM alone that was paused so before', async () => {
    status = 'io-error';
    await begin();
    expect(await qemu.backups.end([target('a')])).toBeUndefined();
    expect(acts()).not.toContain('cont');
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

test('relies on no bitmap that may have missed what was written where the VM was sent', async () => {
  nodes = [node('node-a', 'qcow2', [bitmap('stored'), bitmap('in memory', { persistent: false })])];
  const relied = async (): Promise<string[]> =>
    (await qemu.backups.checkpoints(vmDisk('a'))).flatMap(({ name, why }) => (why === undefined ? [name] : []));
  expect(await relied()).toEqual(['stored', 'in memory']);
  migration = { status: 'cancelled', ram: {} };
  expect(await relied()).toEqual(['stored']);
  sendsBitmaps = true;
  expect(await relied()).toEqual([]);
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
