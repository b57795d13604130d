// What lies under what, against the kernel: images in images, btrfs with two devices and two subvolumes, paths that are
// mounted over, mount points that are files, sockets and FIFOs, other mount namespaces, a freeze that hangs. All in a
// private mount namespace (support/private-mounts.ts); the coordinator stands outside and sees its mount table, and what
// lies under its loop devices as it is seen from inside.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { basename, join } from 'node:path';
import { execa } from 'execa';
import type { FilesystemReport, FreezeReport, FreezeRequest } from '../../src/consistency.js';
import { BridgeError, QuiesceError } from '../../src/errors.js';
import { createCoordinator } from '../../src/freeze/coordinator.js';
import { createDiskLookup } from '../../src/linux/disks.js';
import { listedSuperblocks, mountsOfProcesses, unknownSuperblocks } from '../../src/linux/other-namespaces.js';
import { connectToSocket } from '../../src/freeze/freezer/client.js';
import { markerFiles } from '../../src/freeze/freezer/markers.js';

import type { MountElsewhere, MountTable } from '../../src/linux/mounts.js';
import { atOnce } from '../../src/linux/turns.js';
import { tableOf } from '../support/mount-table.js';
import type { CoordinatorOptions, LocalCoordinator } from '../../src/freeze/options.js';
import { FakeMachine } from '../support/fake-machine.js';
import { privateMounts, type PrivateMounts } from '../support/private-mounts.js';
import { requires } from '../support/requires.js';

const EINVAL = 22;
const EBUSY = 16;

requires(
  'root',
  'loop',
  'gcc',
  'make',
  'unshare',
  'nsenter',
  'busybox',
  'losetup',
  'mkfs.ext4',
  'mkfs.btrfs',
  'btrfs',
)('what lies under what', () => {
  let mounts: PrivateMounts;
  let dir: string;
  let mountinfoPath: string;
  let freezerPath: string;
  let sysRoot: string;
  let coordinator: LocalCoordinator;
  /** Undo of a test's own mounts. */
  let undo: (readonly string[])[] = [];

  const inside = async (...command: readonly string[]): Promise<string> => {
    const [file, words] = mounts.inside('/bin/busybox', ...command);
    return (await execa(file, words)).stdout;
  };
  const bind = async (from: string, to: string): Promise<void> => {
    await inside('mount', '-o', 'bind', from, to);
    undo.push(['umount', to]);
  };
  const table = (): MountTable => tableOf(readFileSync(mountinfoPath));

  // Sysfs shows the file of a loop device by a path of whoever looks: this program stands outside.
  const sysfsAsSeenInside = async (): Promise<string> => {
    const machine = new FakeMachine(join(mounts.shared, 'machine'));
    const loops = (await inside('ls', '/sys/block')).split('\n').filter((name) => name.startsWith('loop'));
    for (const name of loops) {
      const file = await inside('cat', `/sys/block/${name}/loop/backing_file`).catch(() => undefined);
      if (file === undefined) continue;
      const path = `devices/virtual/block/${name}`;
      const number = (await inside('cat', `/sys/block/${name}/dev`)).trim();
      machine.file(`${path}/dev`, `${number}\n`);
      machine.file(`${path}/loop/backing_file`, `${file}\n`);
      machine.link(`class/block/${name}`, path);
      machine.link(`dev/block/${number}`, path);
    }
    for (const fsid of readdirSync('/sys/fs/btrfs').filter((name) => name !== 'features'))
      for (const name of readdirSync(join('/sys/fs/btrfs', fsid, 'devices')))
        machine.link(`fs/btrfs/${fsid}/devices/${name}`, `devices/virtual/block/${name}`);
    return machine.sysRoot;
  };

  beforeAll(async () => {
    mounts = await privateMounts({
      filesystems: { a: 'ext4', b: 'ext4', outer: 'ext4' },
      nested: [
        { name: 'middle', on: 'outer' },
        { name: 'inner', on: 'middle', mebibytes: 6 },
      ],
      btrfs: ['pool', 'one', 'two'],
      boundMs: 120_000,
    });
    ({ freezerPath, mountinfoPath } = mounts.outside);
    mkdirSync(join(mounts.shared, 'machine'));
    sysRoot = await sysfsAsSeenInside();
  });
  afterAll(async () => {
    await mounts[Symbol.asyncDispose]();
  });
  const create = (more: CoordinatorOptions = {}): LocalCoordinator =>
    createCoordinator({
      runtimeDir: dir,
      freezerPath,
      mountinfoPath,
      sysRoot,
      writerFolders: [],
      expediteRcu: false,
      ...more,
    });
  beforeEach(() => {
    dir = join(mounts.shared, 'run');
    mkdirSync(dir, { recursive: true });
    coordinator = create();
  });
  afterEach(async () => {
    await mounts.stranger('thaw', indexOf('outer')); // a failed test may have left the disk under middle stalled
    await coordinator.close().catch(() => undefined);
    const nobody = { onExpired() {}, onThawed() {}, onLost() {} };
    const freezer = await connectToSocket(join(dir, 'freezer.sock'), nobody).catch(() => undefined);
    const pid = (await freezer?.hello())?.pid;
    freezer?.close();
    if (pid !== undefined) {
      process.kill(pid, 'SIGTERM');
      await expect.poll(() => existsSync(join(dir, 'freezer.sock'))).toBe(false);
    }
    for (const command of undo.splice(0).reverse()) await inside(...command);
    rmSync(dir, { recursive: true });
    for (const { name, index } of mounts.mounts) expect(await mounts.stranger('thaw', index), name).toBe(EINVAL);
  });

  const request = (more: Partial<FreezeRequest> = {}): FreezeRequest => ({
    requester: 'test',
    leaseMs: 20_000,
    require: 'crash',
    ...more,
  });
  const indexOf = (name: string): number => mounts.mounts.find((mount) => mount.name === name)?.index ?? -1;
  const of = (report: FreezeReport, name: string): FilesystemReport | undefined =>
    report.filesystems.find(({ mountpoint }) => mountpoint === `/mnt/${name}`);
  const span = (report: FreezeReport, name: string, verb: 'freeze' | 'thaw'): { startMs: number; endMs: number } => {
    const found = of(report, name)?.[verb];
    if (found === undefined) throw new Error(`${name} has no ${verb}`);
    return found;
  };
  const isFrozen = async (path: string): Promise<boolean> => {
    const [file, words] = mounts.inside('/bin/busybox', 'touch', `${path}/probe`);
    const touching = execa(file, words, { reject: false }).then(() => false);
    return await Promise.race([
      touching,
      new Promise<true>((resolve) => {
        setTimeout(() => {
          resolve(true);
        }, 1_000);
      }),
    ]);
  };

  test('an image in an image in an image freezes before what it lies in, and thaws after it', async () => {
    const files = createDiskLookup(table(), { sysRoot }).chainOf(
      table().filesystems.find(({ mountpoint }) => mountpoint === '/mnt/inner') ?? expect.fail('no /mnt/inner'),
    ).files;
    expect(files.map((file) => basename(file))).toEqual(['inner.img', 'middle.img', 'outer.img']);
    const session = await coordinator.freeze(request({ require: 'filesystem' }));
    expect(session.frozenCount).toBe(6);
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'ok', level: 'filesystem' });
    const chain = ['inner', 'middle', 'outer'];
    for (const [index, name] of chain.entries()) {
      const next = chain[index + 1];
      if (next === undefined) continue;
      expect(span(report, name, 'freeze').endMs).toBeLessThanOrEqual(span(report, next, 'freeze').startMs);
      expect(span(report, next, 'thaw').endMs).toBeLessThanOrEqual(span(report, name, 'thaw').startMs);
    }
    expect(session.thawedCount).toBe(6);
  });

  test('the other way round the kernel hangs: given up at the limit, named, and all comes back', async () => {
    const { mounts: all } = mounts;
    const line = (group: number, name: string): [number, number, string, string] => {
      const { mountId = 0, device = '', path = '' } = all.find((mount) => mount.name === name) ?? {};
      return [group, mountId, device, path];
    };
    // Something to write, so that freezing the inner one must write to the outer one.
    await inside('dd', 'if=/dev/urandom', 'of=/mnt/middle/dirty', 'bs=64k', 'count=8');
    await coordinator.freeze(request({ mountpoints: [] })).then(async (session) => await session.thaw());
    const freezer = await connectToSocket(join(dir, 'freezer.sock'), { onExpired() {}, onThawed() {}, onLost() {} });
    try {
      await freezer.plan({ session: 's', owner: 'test', leaseMaxMs: 20_000, budgetMs: 20_000, expedite: false });
      await freezer.add(...line(0, 'outer'));
      await freezer.add(...line(1, 'middle'));
      const answer = await freezer.freeze(10_000, 400);
      expect(answer).toMatchObject({ ok: false, code: 'freeze' });
      expect(answer.ok ? '' : answer.text).toContain('/mnt/middle');
      // The outer one is thawed without being asked for, which lets the inner one freeze, and thaw.
      expect(await freezer.thaw()).toMatchObject({ ok: true });
      await expect.poll(async () => await freezer.hung()).toEqual([]);
    } finally {
      freezer.close();
    }
  });

  test('btrfs: one freeze for all its subvolumes and devices', async () => {
    const pool = table().filesystems.filter(({ type }) => type === 'btrfs');
    expect(pool.map((filesystem) => filesystem.mounts.map(({ mountpoint }) => mountpoint))).toEqual([
      ['/mnt/pool', '/mnt/one', '/mnt/two'],
    ]);
    const [first] = pool;
    expect(first === undefined ? [] : createDiskLookup(table(), { sysRoot }).chainOf(first).devices).toHaveLength(2);
    const session = await coordinator.freeze(request({ require: 'filesystem', mountpoints: ['/mnt/two'] }));
    expect(session.frozenCount).toBe(1);
    expect(await Promise.all(['pool', 'one', 'two', 'a'].map(async (name) => await isFrozen(`/mnt/${name}`)))).toEqual([
      true,
      true,
      true,
      false,
    ]);
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'ok', level: 'filesystem' });
    expect(of(report, 'pool')).toMatchObject({ type: 'btrfs', held: 'frozen', freezeErrno: 0, thawErrno: 0 });
    for (const name of ['pool', 'one', 'two']) expect(await isFrozen(`/mnt/${name}`)).toBe(false);
  });

  test('mounted over: frozen by another mount of it, or else left, named and worth crash', async () => {
    await inside('mkdir', '-p', '/mnt/also');
    await bind('/mnt/a', '/mnt/also');
    await bind('/mnt/b', '/mnt/a');
    const session = await coordinator.freeze(request({ require: 'filesystem' }));
    expect(await isFrozen('/mnt/also')).toBe(true);
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'ok', level: 'filesystem', skipped: [] });
    expect(of(report, 'also')).toMatchObject({ held: 'frozen' });

    await inside('umount', '/mnt/also');
    undo = undo.filter(([, path]) => path !== '/mnt/also');
    const hidden = await coordinator.freeze(request());
    expect(await mounts.stranger('thaw', indexOf('a'))).toBe(EINVAL); // by the guard's own descriptor
    const lower = await hidden.thaw();
    const reason = 'hidden under the ext4 mounted at /mnt/a, cannot be opened';
    expect(lower).toMatchObject({ outcome: 'ok', level: 'crash', skipped: [{ what: '/mnt/a', reason }] });
    expect(lower.evidence).toContain(`/mnt/a (ext4) was not held: ${reason}`);
    await expect(coordinator.freeze(request({ require: 'filesystem' }))).rejects.toThrow(reason);
  });

  test('a file, a socket and a FIFO as mount points: another mount is opened; without one it is said', async () => {
    await inside('sh', '-c', 'cd /mnt/a && mkdir -p folder && echo x >file && /bin/busybox mkfifo -m 600 fifo');
    // Made from outside, by way of a process that is inside.
    const server = createServer();
    await new Promise<void>((resolve) => {
      server.listen(mountinfoPath.replace(/mountinfo$/, 'root/mnt/a/socket'), resolve);
    });
    await inside('mkdir', '-p', '/mnt/points');
    await inside('touch', '/mnt/points/file', '/mnt/points/fifo', '/mnt/points/socket');
    for (const name of ['file', 'fifo', 'socket']) await bind(`/mnt/a/${name}`, `/mnt/points/${name}`);
    expect(await inside('stat', '-c', '%F', '/mnt/points/socket')).toBe('socket');
    server.close();
    // Whoever looks for the filesystem finds these first: its own mount is hidden.
    await bind('/mnt/b', '/mnt/a');
    await inside('mkdir', '-p', '/mnt/points/folder');
    const without = await coordinator.freeze(request());
    const lower = await without.thaw();
    expect(lower).toMatchObject({ outcome: 'ok', level: 'crash' });
    expect(lower.filesystems.find(({ mountpoint }) => mountpoint.startsWith('/mnt/points/'))).toMatchObject({
      held: 'none',
      reason: expect.stringContaining('Not a directory') as string,
    });

    await inside('umount', '/mnt/a');
    await bind('/mnt/a/folder', '/mnt/points/folder');
    await inside('mount', '-o', 'bind', '/mnt/b', '/mnt/a');
    const session = await coordinator.freeze(request({ require: 'filesystem' }));
    expect(await isFrozen('/mnt/points/folder')).toBe(true);
    expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'filesystem' });
    undo = [...undo.filter(([, path]) => path !== '/mnt/a'), ['umount', '/mnt/a']];
  });

  test('a mount point that is not UTF-8 is opened and frozen by its bytes', async () => {
    // The one place where this filesystem can be opened: its own mount is hidden.
    const place = '"/mnt/points/$(printf "caf\\351")"';
    await inside('sh', '-c', `/bin/busybox mkdir -p ${place} && /bin/busybox mount -o bind /mnt/a ${place}`);
    undo.push(['sh', '-c', `/bin/busybox umount ${place}`]);
    await bind('/mnt/b', '/mnt/a');
    const session = await coordinator.freeze(request({ require: 'filesystem' }));
    expect(await mounts.stranger('freeze', indexOf('a'))).toBe(EBUSY);
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'ok', level: 'filesystem' });
    expect(report.filesystems.map(({ mountpoint }) => mountpoint)).toContain('/mnt/points/caf\udce9');
  });

  test('from outside, all of it is mounted elsewhere: named with a process, and never in the table', async () => {
    const own = tableOf(readFileSync('/proc/self/mountinfo'));
    const elsewhere = (): readonly MountElsewhere[] => atOnce(mountsOfProcesses(own, '/proc'));
    const found = elsewhere().filter(({ filesystem }) => filesystem.source.startsWith('/dev/loop'));
    const names = found.map(({ filesystem }) => filesystem.mountpoint.replace(/^\/proc\/\d+\/root/, ''));
    expect(names).toEqual(
      expect.arrayContaining(['/mnt/a', '/mnt/b', '/mnt/outer', '/mnt/middle', '/mnt/inner', '/mnt/pool']),
    );
    expect(found[0]?.reason).toMatch(/^mounted in the mount namespace of process \d+ \(.+\) alone, not touched$/);

    // Without asking processes, the drivers show it; and what is in no table at all is found by them alone.
    const lookup = createDiskLookup(own, { sysRoot: '/sys' });
    const unseen = (others: readonly MountElsewhere[]): string[] => {
      const known = [...own.filesystems, ...others.map(({ filesystem }) => filesystem)];
      return unknownSuperblocks(listedSuperblocks('/sys'), known, lookup, '/sys').map(({ device }) => `/dev/${device}`);
    };
    const loopOf = (name: string): string =>
      found.find(({ filesystem }) => filesystem.mountpoint.endsWith(`/mnt/${name}`))?.filesystem.source ?? '';
    expect(unseen([])).toEqual(expect.arrayContaining([loopOf('a'), loopOf('outer'), loopOf('inner')]));
    expect(unseen(found)).not.toContain(loopOf('a'));
    await inside('umount', '-l', '/mnt/b'); // the guard has it open
    expect(unseen(elsewhere())).toContain(loopOf('b'));
    await inside('mount', loopOf('b'), '/mnt/b');
    expect(unseen(elsewhere())).not.toContain(loopOf('b'));
  });

  test('a rule takes one out: not frozen, named, and its label is crash', async () => {
    coordinator = create({
      rules: { includeMountpoints: [], includeTypes: [], excludeMountpoints: ['/mnt/?'], excludeTypes: ['btrfs'] },
    });
    const session = await coordinator.freeze(request());
    expect(session.frozenCount).toBe(3);
    expect(await isFrozen('/mnt/a')).toBe(false);
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'ok', level: 'crash' });
    expect(report.skipped.map(({ what }) => what).sort()).toEqual(['/mnt/a', '/mnt/b', '/mnt/pool']);
    await expect(coordinator.freeze(request({ require: 'auto' }))).rejects.toThrow('excluded by configuration');
  });

  test('a freeze that hangs ends the attempt at its own limit; what froze is thawed and released at once', async () => {
    const hooks = join(dir, 'hooks');
    mkdirSync(hooks, { mode: 0o755 });
    const [file, words] = mounts.inside('/bin/busybox', 'sh', '-c');
    const hook = (freeze: string, thaw: string): void => {
      const path = join(hooks, 'stall');
      const command = [file, ...words].join(' ');
      writeFileSync(path, `#!/bin/sh\ncase $1 in freeze) ${command} '${freeze}';; thaw) ${command} '${thaw}';; esac\n`);
      chmodSync(path, 0o755);
    };
    const stall =
      '/bin/busybox dd if=/dev/urandom of=/mnt/middle/dirty bs=64k count=8; /bin/busybox fsfreeze --freeze /mnt/outer';
    // What the writers hold is let go before the disk answers, and is what makes it answer.
    hook(stall, '/bin/busybox fsfreeze --unfreeze /mnt/outer');
    coordinator = create({ freezeLimitMs: 500, writerFolders: [{ path: hooks, style: 'bridge' }] });
    // The newer one freezes first.
    const mountpoints = ['/mnt/pool', '/mnt/middle'];
    const attempt = async (): Promise<{ error: BridgeError; report: FreezeReport }> => {
      const error = await coordinator.freeze(request({ mountpoints })).catch((reason: unknown) => reason);
      if (!(error instanceof BridgeError) || error.facts['report'] === undefined) throw error;
      return { error, report: error.facts['report'] as FreezeReport };
    };
    const released = await attempt();
    expect(released.error).toBeInstanceOf(QuiesceError);
    expect(released.error.message).toContain('not frozen within 500 ms, given up, the rest is thawed: /mnt/middle');
    expect(released.report).toMatchObject({ outcome: 'failed', level: 'none', state: 'thawed' });
    expect(of(released.report, 'pool')).toMatchObject({ freezeErrno: 0, thawErrno: 0 });
    expect(of(released.report, 'middle')).toMatchObject({
      held: 'none',
      reason: expect.stringMatching(/^its freeze took too long/) as string,
    });
    const freezing = released.report.steps.find(({ step }) => step === 'freeze');
    const letGo = released.report.writers[0]?.phases.find(({ phase }) => phase === 'thaw');
    expect((letGo?.startMs ?? Infinity) - (freezing?.startMs ?? 0)).toBeLessThan(1_500);
    for (const name of ['pool', 'middle', 'outer']) expect(await isFrozen(`/mnt/${name}`)).toBe(false);

    // The disk does not answer: it is given up, named, and in the way of nobody.
    hook(stall, ':');
    const begun = performance.now();
    const { error, report } = await attempt();
    expect(performance.now() - begun).toBeLessThan(6_000);
    expect(error).toBeInstanceOf(QuiesceError);
    expect(error.message).toContain('not frozen within 500 ms, given up, the rest is thawed: /mnt/middle');
    expect(report).toMatchObject({ outcome: 'failed', state: 'thawed' });
    expect(of(report, 'middle')).toMatchObject({
      held: 'none',
      reason: 'its freeze took too long, and has not returned: given up, and thawed as soon as it does',
    });
    expect(await coordinator.status()).toEqual({ state: 'idle' });
    expect(await coordinator.hungFilesystems()).toMatchObject([
      { mountpoint: '/mnt/middle', call: 'freeze', session: report.session },
    ]);
    expect(await isFrozen('/mnt/pool')).toBe(false);
    hook(':', ':');
    const without = await coordinator.freeze(request({ mountpoints, require: 'plain' }));
    expect(without.frozenCount).toBe(1);
    const lower = await without.thaw();
    expect(lower).toMatchObject({ outcome: 'ok', level: 'crash' });
    expect(of(lower, 'middle')?.reason).toMatch(/^given up by session .*: its freeze has not returned/);
    expect(await mounts.stranger('thaw', indexOf('outer'))).toBe(0);
    await expect.poll(async () => await coordinator.hungFilesystems(), { timeout: 3000 }).toEqual([]);
    expect(markerFiles(join(dir, 'frozen'))).toEqual([]);
    expect(await isFrozen('/mnt/middle')).toBe(false);
    const next = await create().freeze(request({ require: 'filesystem' }));
    expect((await next.thaw()).outcome).toBe('ok');
  });
});
