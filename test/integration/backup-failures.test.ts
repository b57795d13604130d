// Backups that fail or are killed at every step: each costs nothing but itself. The next one is an increment of the newest
// run that is there, and every run that is listed is what the disks held at its cut.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import { BackupHarness } from '../support/backup-harness.js';
import type { BareDisk } from '../support/bare-qemu.js';
import { LossyProxy, StepProxy, type Step } from '../support/lossy-proxy.js';
import { requires } from '../support/requires.js';
import { oneIn } from '../support/variants.js';
import { WRITTEN_SECTOR } from '../support/writing-firmware.js';

let vm: BackupHarness;
afterEach(async () => {
  await vm[Symbol.asyncDispose]();
});

const two: readonly BareDisk[] = [
  { name: 'root0', format: 'raw' },
  { name: 'data0', format: 'qcow2' },
];
/** A VM with one run, and writes since. */
const start = async (disks: readonly BareDisk[] = two): Promise<string> => {
  vm = await BackupHarness.start(disks);
  for (const { name } of disks) await vm.write(name, 1, 0, 2048);
  const full = await vm.run();
  expect(full.error.message).toBe('none');
  for (const { name } of disks) await vm.write(name, 2, 512, 256);
  return full.made.run;
};

/** Every run that is listed restores as its cut was; nothing is left over. */
const expectAllGood = async (): Promise<void> => {
  const listed = await vm.listed();
  for (const run of listed) expect(await vm.differences(run), run).toEqual([]);
  expect((await vm.backup('verify')).code).toBe(0);
  expect(readdirSync(vm.stored()).filter((name) => name.startsWith('.'))).toEqual([]);
  expect(await vm.at.jobs()).toEqual([]);
  expect(await vm.at.ourNodes()).toEqual([]);
  expect(readdirSync(vm.at.state())).toEqual(['vm.json']);
};

/** Bitmaps of ours on the disk, by the runs that they begin at. */
const checkpoints = async (disk: string): Promise<string[]> => {
  const nodes = (await vm.at.vm.control.execute('query-named-block-nodes', { flat: true })) as {
    'node-name': string;
    'dirty-bitmaps'?: { name?: string }[];
  }[];
  const own = nodes.find((node) => node['node-name'] === `node-${disk}`)?.['dirty-bitmaps'] ?? [];
  return own.flatMap(({ name }) => /^fsb-[0-9a-f]{8}-(.+)-\d+$/.exec(name ?? '')?.[1] ?? []).sort();
};

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a backup that does not come to its end', () => {
  const kills: readonly Step[] = [
    { command: 'blockdev-add', when: 'before' },
    { command: 'blockdev-add', nth: 2, when: 'after' },
    { command: 'transaction', when: 'before' },
    { command: 'transaction', when: 'after' },
    { command: 'job-finalize', when: 'before' },
    { command: 'job-finalize', when: 'after' },
    { command: 'job-finalize', nth: 2, when: 'after' },
    { command: 'job-dismiss', when: 'before' },
    { command: 'blockdev-reopen', when: 'before' },
    { command: 'blockdev-reopen', nth: 2, when: 'after' },
    { command: 'blockdev-del', when: 'before' },
    { command: 'blockdev-del', nth: 2, when: 'after' },
  ];
  test.each(oneIn(3, kills, 1))(
    'killed $when $command $nth, is recovered, and the next is an increment',
    async (step) => {
      const full = await start();
      await vm.at.killToolAt(vm.words(), step);
      expect(await vm.listed()).toEqual([full]);
      const recover = await vm.at.bridge(['recover']);
      expect(recover.json['findings']).toMatchObject(
        expect.arrayContaining([expect.objectContaining({ kind: 'backup-unfinished', status: 'done' })]),
      );
      expect(recover.code).toBe(0);
      expect(vm.at.agent.frozen).toBe(false);
      expect(await checkpoints('data0')).toEqual([full]);
      expect((await vm.at.bridge(['recover'])).json['findings']).toEqual([]);
      await vm.write('data0', 3, 1024, 64);
      const next = await vm.run('--incremental');
      expect(next.error.message).toBe('none');
      expect(next.made.disks.map(({ base }) => base?.run)).toEqual([full, full]);
      await expectAllGood();
    },
  );

  test('killed while it copies, is put right by the next one', async () => {
    const full = await start();
    const child = vm.at.spawn(vm.words('--full', '--limit', '1'));
    await expect.poll(async () => (await vm.at.jobs()).length, { timeout: 30_000 }).toBe(2);
    // The guest is let go, and the journal says so.
    const journal = (): string => readFileSync(vm.at.state('backup.json'), 'utf8');
    await expect.poll(journal, { timeout: 10_000 }).not.toContain('"hold"');
    await vm.write('root0', 3, 4096, 512);
    child.kill('SIGKILL');
    await child;
    // As on another machine that shares the repository, after a while: no process of the VM is seen there, only QEMU's locks.
    rmSync(join(vm.repository, 'locks'), { recursive: true });
    const words = ['backup', 'recover', '--json', '--repo', vm.repository];
    const alone = ['--pid', '--fork', '--mount-proc', '--', process.execPath, HOST_TOOL, ...words];
    const elsewhere = JSON.parse((await execa('unshare', alone, { reject: false })).stdout) as unknown;
    const did = expect.stringMatching(/locked the image.* still writes to it/) as string;
    expect(elsewhere).toMatchObject({ findings: [{ status: 'yours', did }] });
    const next = await vm.run('--incremental');
    expect(next.error.message).toBe('none');
    expect(next.made.disks[0]?.base?.run).toBe(full);
    await expectAllGood();
  });

  test('killed when its run is there, has made it', async () => {
    const full = await start();
    await vm.at.killToolAt(vm.words('--keep-checkpoints', '1'), {
      command: 'block-dirty-bitmap-remove',
      when: 'before',
    });
    const listed = await vm.listed();
    expect(listed).toHaveLength(2);
    vm.states.set(listed[1] ?? '', vm.state());
    expect((await vm.at.bridge(['recover'])).code).toBe(0);
    const next = await vm.run('--incremental', '--keep-checkpoints', '1');
    expect(next.made.disks.map(({ base }) => base?.run)).toEqual([listed[1], listed[1]]);
    expect(await checkpoints('data0')).toEqual([next.made.run]);
    expect(listed[0]).toBe(full);
    await expectAllGood();
  });

  test('killed, and its repository lost, keeps no backup from going elsewhere', async () => {
    const full = await start();
    const words = ['backup', 'run', '--to', vm.at.folder.path('second'), '--init', '--min-free', '1'];
    await vm.at.killToolAt(vm.words(), { command: 'job-finalize', when: 'before' });
    // The guest is thawed: the journal holds no session.
    expect(readFileSync(vm.at.state('backup.json'), 'utf8')).not.toContain('"hold"');
    renameSync(vm.repository, vm.at.folder.path('lost'));
    expect((await vm.at.bridge(words)).error.message).toBe('none');
    expect(await vm.at.jobs()).toHaveLength(0);
    expect(existsSync(vm.at.state('backup.json'))).toBe(false);
    // It was not mounted, and comes back.
    renameSync(vm.at.folder.path('lost'), vm.repository);
    expect(await checkpoints('data0')).toContain(full);
    expect((await vm.backup('recover')).json).toMatchObject({ findings: [{ status: 'done' }] });
    const next = await vm.run('--incremental');
    expect(next.made.disks.map(({ base }) => base?.run)).toEqual([full, full]);
    await expectAllGood();
  });

  test.each(['backup.json', 'restore.json'])('a %s of a newer version is not passed over', async (name) => {
    const full = await start();
    writeFileSync(vm.at.state(name), JSON.stringify({ format: 2 }));
    const next = await vm.run();
    expect(next).toMatchObject({ code: 2, error: { code: 'E_UNFINISHED' } });
    expect(next.error.message).toContain(vm.at.state(name));
    const told = await vm.at.bridge(['recover']);
    expect(told.json['findings']).toMatchObject([{ status: 'yours' }]);
    expect(existsSync(vm.at.state(name))).toBe(true);
    expect(await vm.listed()).toEqual([full]);
    await vm.at.vm.quit();
    if (name !== 'restore.json') return;
    const restored = await vm.at.bridge(['backup', 'restore', full, '--in-place', '--yes', '--repo', vm.repository]);
    expect(restored).toMatchObject({ code: 2, error: { code: 'E_UNFINISHED' } });
  });

  test('one whose job fails is given up for all disks', async () => {
    const full = await start();
    const work = vm.run('--full', '--limit', '1');
    await expect.poll(async () => (await vm.at.jobs()).length, { timeout: 30_000 }).toBe(2);
    // The tool looks at the disks after the cut, and then copies.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const job = (await vm.at.jobs()).find(({ id }) => id.endsWith('-1'));
    await vm.at.vm.control.execute('job-cancel', { id: job?.id });
    vm.at.agent.completion = { writers: [] };
    const failed = await work;
    expect(vm.at.agent.log.findLast(({ command }) => command === 'bridge-complete')?.args['outcome']).toBe('failed');
    expect(failed).toMatchObject({ code: 5, error: { code: 'E_JOB' } });
    expect(await vm.listed()).toEqual([full]);
    expect(await checkpoints('data0')).toEqual([full]);
    await vm.write('data0', 4, 4096, 64);
    expect((await vm.run('--incremental')).error.message).toBe('none');
    await expectAllGood();
  });

  test('one that is interrupted leaves nothing', async () => {
    const full = await start();
    const controller = new AbortController();
    const work = vm.at.bridge(vm.words('--full', '--limit', '1'), controller.signal);
    await expect.poll(async () => (await vm.at.jobs()).length, { timeout: 30_000 }).toBe(2);
    controller.abort('SIGTERM');
    expect(await work).toMatchObject({ code: 4, error: { code: 'E_INTERRUPTED' } });
    expect(await vm.listed()).toEqual([full]);
    await expectAllGood();
  });

  test('one that is interrupted while it plans has done nothing', async () => {
    const full = await start();
    const step = { command: 'query-migrate', when: 'before' } as const;
    await using proxy = await StepProxy.listen(vm.at.folder.path('proxy.sock'), vm.at.vm.qmp, step);
    const controller = new AbortController();
    const work = vm.at.bridge(vm.words('--full', '--qmp', proxy.path), controller.signal);
    await proxy.reached;
    controller.abort('SIGTERM');
    proxy.goOn();
    const interrupted = await work;
    expect(interrupted).toMatchObject({ code: 4, error: { code: 'E_INTERRUPTED' } });
    expect(interrupted.error.message).toBe('interrupted by SIGTERM: nothing was backed up');
    expect(vm.at.agent.frozen).toBe(false);
    expect(await vm.listed()).toEqual([full]);
    await expectAllGood();
  });

  test('one that is interrupted while its repository hangs lets go of the VM', async () => {
    const full = await start();
    const manifest = vm.stored(full, 'manifest.json');
    renameSync(manifest, vm.path('manifest.json'));
    // Who opens it to read waits for somebody who writes.
    execFileSync('mkfifo', [manifest]);
    const controller = new AbortController();
    const work = vm.at.bridge(vm.words(), controller.signal);
    const locks = (): string[] => readdirSync(join(vm.repository, 'locks'));
    await expect.poll(locks, { timeout: 30_000 }).toHaveLength(1);
    await new Promise((resolve) => setTimeout(resolve, 300));
    try {
      controller.abort('SIGTERM');
      const interrupted = await work;
      expect(interrupted).toMatchObject({ code: 4, error: { code: 'E_INTERRUPTED' } });
      expect(interrupted.error.message).toBe('interrupted by SIGTERM: nothing was backed up');
      expect(readdirSync(vm.at.state())).toEqual(['vm.json']);
      expect(locks()).toEqual([]);
    } finally {
      closeSync(openSync(manifest, constants.O_RDWR | constants.O_NONBLOCK));
    }
    renameSync(vm.path('manifest.json'), manifest);
    expect((await vm.run('--incremental')).error.message).toBe('none');
    await expectAllGood();
  });

  test('one that does not get on is given up in time', async () => {
    const full = await start();
    const work = vm.run('--full', '--limit', '1', '--stall-timeout', '3');
    await expect.poll(async () => (await vm.at.jobs()).length, { timeout: 30_000 }).toBe(2);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    // As a target that hangs.
    for (const { id } of await vm.at.jobs()) await vm.at.vm.control.execute('job-pause', { id });
    const stalled = await work;
    expect(stalled).toMatchObject({ code: 5, error: { code: 'E_DEADLINE' } });
    expect(stalled.error.message).toContain('to get on: no answer within 3000 ms');
    expect(await vm.listed()).toEqual([full]);
    await expectAllGood();
  });

  test('one whose target cannot be flushed by QEMU is given up, and is no run', async () => {
    const full = await start();
    const step = { command: 'job-finalize', when: 'before' } as const;
    await using proxy = await StepProxy.listen(vm.at.folder.path('proxy.sock'), vm.at.vm.qmp, step);
    const work = vm.run('--full', '--qmp', proxy.path);
    await proxy.reached;
    // All is copied, but the tables that tell where are in QEMU's memory yet.
    await vm.at.vm.limitFiles(65_536);
    proxy.goOn();
    const failed = await work;
    await vm.at.vm.limitFiles('unlimited');
    expect(failed).toMatchObject({ code: 5, error: { code: 'E_BACKUP' } });
    expect(failed.error.message).toContain('QEMU cannot flush');
    expect(await vm.listed()).toEqual([full]);
    expect(await checkpoints('data0')).toEqual([full]);
    expect((await vm.run('--incremental')).error.message).toBe('none');
    await expectAllGood();
  });

  test('space that could not be taken before the guest was held is told', async () => {
    await start();
    const bin = vm.at.folder.path('bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'fallocate'), '#!/bin/sh\necho "fallocate failed: Operation not supported" >&2\nexit 1\n');
    chmodSync(join(bin, 'fallocate'), 0o755);
    const before = process.env['PATH'];
    process.env['PATH'] = `${bin}:${before ?? ''}`;
    try {
      const made = await vm.run('--full');
      expect(made.error.message).toBe('none');
      expect(made.json['troubles']).toEqual([
        expect.stringContaining('the space for root0.qcow2 could not be taken'),
        expect.stringContaining('the space for data0.qcow2 could not be taken'),
      ]);
      expect((await vm.run('--full', '--compress', 'zstd')).json['troubles']).toEqual([]);
    } finally {
      process.env['PATH'] = before;
    }
    await expectAllGood();
  });

  test('a VM that a full target paused runs on once the backup is given up', async () => {
    vm = await BackupHarness.start([{ name: 'root0', format: 'qcow2', ide: true }]);
    const writtenKilobytes = WRITTEN_SECTOR / 2;
    await vm.write('root0', 3, writtenKilobytes, 64);
    await vm.write('root0', 1, 0, 2048);
    const full = (await vm.run()).made.run;
    const work = vm.run('--full', '--limit', '1');
    await expect.poll(async () => (await vm.at.jobs()).length, { timeout: 30_000 }).toBe(1);
    const [draft = ''] = readdirSync(vm.stored()).filter((name) => name.startsWith('.draft'));
    const target = vm.stored(draft, 'root0.qcow2');
    await expect.poll(() => statSync(target).size, { timeout: 30_000, interval: 20 }).toBeGreaterThan(512 * 1024);
    const [job] = await vm.at.jobs();
    await vm.at.vm.control.execute('job-pause', { id: job?.id });
    // What is under way must not meet the limit.
    await expect.poll(async () => (await vm.at.jobs())[0]?.status, { timeout: 30_000, interval: 20 }).toBe('paused');
    // The target is full; what the guest overwrites lies below that in its own image.
    await vm.at.vm.limitFiles(statSync(target).size);
    await vm.at.vm.control.execute('system_reset');
    const failed = await work;
    expect(failed).toMatchObject({ code: 5, error: { code: 'E_BACKUP' } });
    expect(failed.error.message).toContain('QEMU paused the VM, since a write of its guest failed (io-error)');
    expect(await vm.at.vm.status()).toBe('running');
    await vm.at.vm.limitFiles('unlimited');
    expect(await vm.listed()).toEqual([full]);
    await vm.write('root0', 4, writtenKilobytes, 64);
    expect((await vm.run('--incremental')).error.message).toBe('none');
    await expectAllGood();
  });

  test('a lost answer to the transaction: asked after the thaw, and labelled by what is known', async () => {
    const full = await start();
    const proxy = vm.at.folder.path('proxy.sock');
    {
      await using lossy = await LossyProxy.listen(proxy, vm.at.vm.qmp, 'transaction', 'request');
      const lost = await vm.run('--qmp', lossy.path, '--cut-timeout', '1');
      expect(lost).toMatchObject({ code: 5, error: { code: 'E_CUT' } });
    }
    expect(await vm.listed()).toEqual([full]);
    expect(await checkpoints('data0')).toEqual([full]);
    await using lossy = await LossyProxy.listen(`${proxy}2`, vm.at.vm.qmp, 'transaction', 'answer');
    vm.at.agent.completion = { writers: [] };
    const made = await vm.run('--qmp', lossy.path, '--cut-timeout', '1');
    expect(made).toMatchObject({ code: 7, json: { level: 'crash', satisfied: false } });
    expect(JSON.stringify(made.json)).toContain('the answer to the transaction was lost');
    expect(vm.at.agent.log.findLast(({ command }) => command === 'bridge-complete')?.args['outcome']).toBe('failed');
    await expectAllGood();
  });

  test('one that the guest refuses to be held for cuts nothing', async () => {
    const full = await start();
    vm.at.agent.mood = 'refuses';
    const refused = await vm.run();
    expect(refused.code).toBe(4);
    vm.at.agent.mood = 'answers';
    expect(await checkpoints('data0')).toEqual([full]);
    await expectAllGood();
  });

  test('one whose guest does not confirm the thaw is given up at once, and the guest comes first', async () => {
    const full = await start();
    vm.at.agent.mood = 'keeps-frozen';
    const unconfirmed = await vm.run('--thaw-timeout', '1', '--lease', '1');
    expect(unconfirmed).toMatchObject({ code: 6, error: { code: 'E_THAW_UNCONFIRMED' } });
    expect(await vm.listed()).toEqual([full]);
    expect(await vm.at.jobs()).toEqual([]);
    expect(await vm.at.ourNodes()).toEqual([]);
    // Nothing goes over a guest that may be held, until it is known to be thawed.
    vm.at.agent.mood = 'answers';
    expect((await vm.run()).error.code).toBe('E_UNFINISHED');
    const recovered = await vm.at.bridge(['recover']);
    expect(recovered.code).toBe(0);
    expect(JSON.stringify(recovered.json)).toContain('the guest is thawed, and says so');
    expect(vm.at.agent.frozen).toBe(false);
    expect((await vm.run('--incremental')).error.message).toBe('none');
    await expectAllGood();
  });

  test('one without space is refused before anything is done', async () => {
    await start();
    const refused = await vm.run('--min-free', '900000000');
    expect(refused).toMatchObject({ code: 5, error: { code: 'E_NO_SPACE' } });
    await expectAllGood();
  });

  test('QEMU that is killed while it copies costs the run; what is stored in no image is said', async () => {
    const full = await start();
    const work = vm.run('--full', '--limit', '1');
    await expect.poll(async () => (await vm.at.jobs()).length, { timeout: 30_000 }).toBe(2);
    await vm.at.vm.flush('root0');
    await vm.at.vm.flush('data0');
    await vm.at.vm.kill();
    expect((await work).error.code).not.toBe('none');
    await vm.at.start(two.map((disk) => ({ ...disk, file: vm.at.folder.path(`images/${disk.name}.${disk.format}`) })));
    const next = await vm.run();
    expect(next.error.message).toBe('none');
    expect(next.made.disks.map(({ kind }) => kind)).toEqual(['full', 'full']);
    expect(next.made.disks[0]?.why).toContain('no image keeps them, and QEMU was started anew');
    expect(next.made.disks[1]?.why).toContain('QEMU ended without storing');
    expect(await vm.listed()).toEqual([full, next.made.run]);
    await expectAllGood();
  });
});

test('a repository that is read-only is verified, and restored from', async () => {
  const full = await start();
  const { execa } = await import('execa');
  const mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"';
  const readOnly = async (...words: readonly string[]) =>
    await execa(
      'unshare',
      ['-m', '--propagation', 'private', 'sh', '-c', mount, 'sh', vm.repository, process.execPath, HOST_TOOL].concat([
        'backup',
        ...words,
        '--repo',
        vm.repository,
        '--json',
      ]),
      { reject: false },
    );
  const verified = await readOnly('verify', full);
  expect(verified.stderr).toContain('read-only');
  expect(verified).toMatchObject({ exitCode: 0 });
  const target = vm.at.folder.path('restored');
  expect(await readOnly('restore', full, target)).toMatchObject({ exitCode: 0 });
  expect(existsSync(target)).toBe(true);
  expect((await readOnly('forget', full)).exitCode).toBe(2);
});

describe('the base of an increment', () => {
  test('is an older run where the newest is gone, and its files are checked', async () => {
    const full = await start();
    const second = await vm.run();
    await vm.write('data0', 3, 2048, 64);
    const third = await vm.run();
    expect(third.error.message).toBe('none');
    rmSync(vm.stored(third.made.run), { recursive: true });
    await vm.write('data0', 4, 3072, 64);
    const next = await vm.run('--incremental');
    expect(next.error.message).toBe('none');
    expect(next.made.disks.map(({ base }) => base?.run)).toEqual([second.made.run, second.made.run]);
    // A file that has another size is none that anything may lie on.
    const file = vm.stored(next.made.run, 'data0.qcow2');
    chmodSync(file, 0o600);
    writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.alloc(512)]));
    const after = await vm.run();
    expect(after.made.disks.map(({ base }) => base?.run)).toEqual([next.made.run, second.made.run]);
    for (const run of [full, second.made.run, after.made.run]) expect(await vm.differences(run)).toEqual([]);
    const verified = await vm.backup('verify');
    expect(verified.code).toBe(10);
    const damaged = (verified.json as { runs: { run: string; problems: string[] }[] }).runs.filter(
      ({ problems }) => problems.length > 0,
    );
    expect(damaged.map(({ run }) => run)).toEqual([next.made.run]);
    expect(damaged[0]?.problems[0]).toContain('bytes, expected');
  });

  test('is none that was found damaged', async () => {
    await start();
    const second = await vm.run();
    const file = vm.stored(second.made.run, 'data0.qcow2');
    chmodSync(file, 0o600);
    const bytes = readFileSync(file);
    bytes[bytes.length - 100] = (bytes[bytes.length - 100] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    expect((await vm.backup('verify', second.made.run)).code).toBe(10);
    const restored = await vm.backup('restore', second.made.run, vm.at.folder.path('damaged'));
    expect(restored).toMatchObject({ code: 5, error: { code: 'E_VERIFY' } });
    expect(existsSync(vm.at.folder.path('damaged'))).toBe(false);
    const next = await vm.run();
    expect(next.made.disks[1]?.base?.run).not.toBe(second.made.run);
    expect(await vm.differences(next.made.run)).toEqual([]);
  });

  test('is none where a header names another file', async () => {
    await start();
    const second = await vm.run();
    await vm.write('data0', 3, 2048, 64);
    const third = await vm.run();
    const { execa } = await import('execa');
    const file = vm.stored(third.made.run, 'data0.qcow2');
    chmodSync(file, 0o600);
    // As a product did that rebased every increment on the full one.
    const full = third.made.disks[1]?.base?.run === second.made.run ? (await vm.listed())[0] : undefined;
    await execa('qemu-img', ['rebase', '-u', '-b', `../${full ?? ''}/data0.qcow2`, '-F', 'qcow2', file]);
    const verified = await vm.backup('verify', third.made.run);
    expect(verified.code).toBe(10);
    expect(JSON.stringify(verified.json)).toContain('its header names');
    expect((await vm.backup('restore', third.made.run, vm.at.folder.path('wrong'), '--no-verify')).error.code).toBe(
      'E_CHAIN',
    );
  });

  test('is chosen for each disk, and a resized one is copied in full', async () => {
    const full = await start();
    await vm.at.vm.control.execute('block_resize', { 'node-name': 'node-data0', size: 24 * 1024 * 1024 });
    vm.resized('data0', 24);
    await vm.write('data0', 5, 20 * 1024, 64);
    const next = await vm.run();
    expect(next.error.message).toBe('none');
    expect(next.made.disks.map(({ kind, base }) => [kind, base?.run])).toEqual([
      ['incremental', full],
      ['full', undefined],
    ]);
    expect(next.made.disks[1]?.why).toContain('resized from 16777216 to 25165824 bytes');
    await expectAllGood();
    expect((await vm.run('--incremental')).made.disks.map(({ kind }) => kind)).toEqual(['incremental', 'incremental']);
  });

  test('is none of a run from before a disk was made smaller, though it is as large as then', async () => {
    await start();
    const resize = async (megabytes: number): Promise<void> => {
      const size = megabytes * 1024 * 1024;
      await vm.at.vm.control.execute('block_resize', { 'node-name': 'node-data0', size });
      vm.resized('data0', megabytes);
    };
    const kindOf = async (): Promise<unknown> => {
      const { error, made } = await vm.run();
      expect(error.message).toBe('none');
      return made.disks[1]?.kind;
    };
    await vm.write('data0', 4, 12 * 1024, 256);
    expect(await kindOf()).toBe('incremental');
    await resize(8);
    expect(await kindOf()).toBe('full');
    await resize(16);
    expect(await kindOf()).toBe('full');
    await expectAllGood();
  });

  test('after a trim of the whole disk needs no room for what is not there', async () => {
    vm = await BackupHarness.start([{ name: 'data0', format: 'qcow2', megabytes: 512, discard: true }]);
    await vm.write('data0', 1, 0, 2048);
    expect((await vm.run()).error.message).toBe('none');
    await vm.discard('data0', 4096, 500 * 1024);
    const { json } = await vm.at.bridge(vm.words('--dry-run'));
    expect(json).toMatchObject({ disks: [{ kind: 'incremental' }] });
    const [disk] = (json as unknown as { disks: { bytes: number }[] }).disks;
    expect(disk?.bytes).toBeLessThan(4 * 1024 * 1024);
  });

  test('ends with the chain', async () => {
    const full = await start();
    const kinds: string[] = [];
    for (let count = 0; count < 4; count++) {
      await vm.write('data0', 10 + count, 64 * count, 64);
      const { made } = await vm.run('--max-chain', '3');
      kinds.push(made.disks[1]?.kind ?? '');
    }
    expect(kinds).toEqual(['incremental', 'incremental', 'full', 'incremental']);
    expect((await vm.run('--max-chain', '1', '--incremental')).error.message).toContain('at most 1 are wanted');
    // Forgotten as a chain, nothing is harmed, and space comes back.
    const listed = await vm.listed();
    const forgotten = await vm.backup('forget', full, listed[1] ?? '');
    expect(forgotten.json).toMatchObject({ vms: [{ removed: [], needed: [{ run: full }, { run: listed[1] }] }] });
    expect(await vm.listed()).toEqual(listed.slice(2));
    for (const run of await vm.listed()) expect(await vm.differences(run)).toEqual([]);
    const last = await vm.backup('forget', listed[2] ?? '');
    expect(last.json).toMatchObject({ vms: [{ removed: listed.slice(0, 3) }] });
    expect(existsSync(vm.stored(full))).toBe(false);
    await expectAllGood();
  });
});
