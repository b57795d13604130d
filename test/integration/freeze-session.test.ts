// The coordinator over the real freezer: real FIFREEZE and FITHAW of loop images in a private mount namespace, whose
// root is a tmpfs and whose guard thaws. The coordinator stands outside and sees the namespace's mount table.
import { afterAll, beforeAll, beforeEach, afterEach, expect, test } from 'vitest';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { join } from 'node:path';
import type { FreezeRequest } from '../../src/consistency.js';
import { createCoordinator } from '../../src/freeze/coordinator.js';
import { connectToSocket, type FreezerIdentity } from '../../src/freeze/freezer/client.js';
import type { CoordinatorOptions, LocalCoordinator } from '../../src/freeze/options.js';
import { rehearse } from '../../src/freeze/session/rehearsal.js';
import { tableOf } from '../support/mount-table.js';
import { privateMounts, type PrivateMounts } from '../support/private-mounts.js';
import { requires } from '../support/requires.js';

const BOUND_MS = 120_000;

requires(
  'root',
  'loop',
  'gcc',
  'make',
  'unshare',
  'nsenter',
  'busybox',
  'mkfs.ext4',
  'mkfs.xfs',
  'dumpe2fs',
)('a session over the real freezer', () => {
  let mounts: PrivateMounts;
  let dir: string;
  let coordinator: LocalCoordinator;
  let options: CoordinatorOptions;
  let mountinfoPath: string;
  let freezerPath: string;

  beforeAll(async () => {
    mounts = await privateMounts({
      filesystems: { one: 'ext4', two: 'xfs' },
      nested: [{ name: 'inner', on: 'one' }],
      boundMs: BOUND_MS,
    });
    ({ freezerPath, mountinfoPath } = mounts.outside);
    // What may be frozen is what this table names, and the freezer compares it with what it opens.
    const devices = tableOf(readFileSync(mountinfoPath)).filesystems.map(({ device }) => device);
    expect(devices).toHaveLength(3);
    expect(devices.filter((device) => !device.startsWith('7:'))).toEqual([]);
  });
  afterAll(async () => {
    await mounts[Symbol.asyncDispose]();
  });

  beforeEach(() => {
    dir = join(mounts.shared, 'run');
    mkdirSync(dir, { recursive: true });
    mkdirSync(join(dir, 'hooks'), { recursive: true, mode: 0o755 });
    options = {
      runtimeDir: dir,
      freezerPath,
      mountinfoPath,
      writerFolders: [{ path: join(dir, 'hooks'), style: 'bridge' }],
      expediteRcu: false,
    };
    coordinator = createCoordinator(options);
  });
  afterEach(async () => {
    await coordinator.close();
    const pid = (await identity().catch(() => undefined))?.pid;
    if (pid !== undefined) {
      process.kill(pid, 'SIGTERM');
      await expect.poll(() => existsSync(join(dir, 'freezer.sock'))).toBe(false);
    }
    rmSync(dir, { recursive: true });
  });

  const identity = async (): Promise<FreezerIdentity> => {
    const freezer = await connectToSocket(join(dir, 'freezer.sock'), { onExpired() {}, onThawed() {}, onLost() {} });
    try {
      return await freezer.hello();
    } finally {
      freezer.close();
    }
  };
  const request = (more: Partial<FreezeRequest> = {}): FreezeRequest => ({
    requester: 'test',
    leaseMs: 20_000,
    require: 'filesystem',
    ...more,
  });
  const write = async (name: string): Promise<boolean> => {
    const [command, words] = mounts.inside('/bin/busybox', 'touch', `/mnt/${name}/probe`);
    const touching = execa(command, words, { reject: false });
    const done = await Promise.race([
      touching.then(() => true),
      new Promise<false>((resolve) => {
        setTimeout(() => {
          resolve(false);
        }, 700);
      }),
    ]);
    return done;
  };
  const indexOf = (name: string): number => mounts.mounts.find((mount) => mount.name === name)?.index ?? -1;
  const allThawed = async (): Promise<void> => {
    for (const { name } of mounts.mounts) expect(await write(name)).toBe(true);
  };

  const features = async (name: string): Promise<string> =>
    (await execa('dumpe2fs', ['-h', join(mounts.shared, `${name}.img`)])).stdout;

  test('is kept away by the rehearsal of a writer, which freezes nothing', async () => {
    writeFileSync(join(dir, 'hooks/app'), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
    let meanwhile: Promise<unknown> | undefined;
    const rehearsal = await rehearse(options, {
      name: 'app',
      requester: 'the test',
      holdMs: 2_000,
      signal: new AbortController().signal,
      onStep(step) {
        if (step !== 'hold') return;
        const refused = coordinator.freeze(request()).catch((error: unknown) => String(error));
        meanwhile = Promise.all([refused, allThawed()]);
      },
    });
    expect(rehearsal).toMatchObject({ outcome: 'ok', locked: true, report: { verdict: 'claimed' } });
    expect(await meanwhile).toEqual([expect.stringContaining('held by the test'), undefined]);
    const session = await coordinator.freeze(request());
    expect((await session.thaw()).outcome).toBe('ok');
    await allThawed();
  });

  test('freezes all, the one in a file first, and thaws all', async () => {
    expect(await features('one')).toContain('needs_recovery');
    const session = await coordinator.freeze(request());
    expect(session.frozenCount).toBe(3);
    expect(await write('two')).toBe(false);
    expect(await features('one')).not.toContain('needs_recovery');
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'ok', level: 'filesystem' });
    const start = (name: string): number =>
      report.filesystems.find(({ mountpoint }) => mountpoint === `/mnt/${name}`)?.freeze?.startMs ?? 0;
    expect(start('inner')).toBeLessThan(start('one'));
    expect(session.thawedCount).toBe(3);
    await allThawed();
  });

  test('with nothing to freeze it holds the lock, and gives it back', async () => {
    const session = await coordinator.freeze(request({ require: 'plain', mountpoints: ['/nonexistent'] }));
    expect(await coordinator.status()).toMatchObject({ state: 'frozen' });
    const other = createCoordinator({ runtimeDir: dir, mountinfoPath });
    await expect(other.freeze(request())).rejects.toThrow('held by test');
    await session.thaw();
    expect(await other.status()).toEqual({ state: 'idle' });
  });

  test('the lease ends: thawed, and told so', async () => {
    const session = await coordinator.freeze(request({ leaseMs: 300 }));
    expect((await session.ended).outcome).toBe('expired');
    await allThawed();
    const next = await coordinator.freeze(request());
    expect((await next.thaw()).outcome).toBe('ok');
  });

  test('a stranger thaws: broken', async () => {
    const session = await coordinator.freeze(request());
    expect(await mounts.stranger('thaw', indexOf('two'))).toBe(0);
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'broken', level: 'crash' });
    expect(report.filesystems.find(({ mountpoint }) => mountpoint === '/mnt/two')).toMatchObject({
      held: 'none',
      thawErrno: 22,
    });
    await allThawed();
  });

  test('a stranger holds it frozen: not ours to count or to thaw', async () => {
    expect(await mounts.stranger('freeze', indexOf('two'))).toBe(0);
    try {
      const session = await coordinator.freeze(request({ require: 'plain' }));
      expect(session.frozenCount).toBe(2);
      expect((await session.thaw()).level).toBe('crash');
      expect(await write('two')).toBe(false);
    } finally {
      await mounts.stranger('thaw', indexOf('two'));
    }
  });

  test('the freezer is killed: all is thawed by its marker', async () => {
    const session = await coordinator.freeze(request());
    process.kill((await identity()).pid, 'SIGKILL');
    expect(await session.ended).toMatchObject({ outcome: 'broken', level: 'crash' });
    await session.thaw();
    await allThawed();
    const next = await coordinator.freeze(request());
    expect((await next.thaw()).outcome).toBe('ok');
  });

  test('the freezer is stopped: killed soon after the lease, and all is thawed', async () => {
    const session = await coordinator.freeze(request({ leaseMs: 500 }));
    const { pid } = await identity();
    process.kill(pid, 'SIGSTOP');
    expect(await session.ended).toMatchObject({ outcome: 'broken', level: 'crash' });
    await expect.poll(() => existsSync(`/proc/${pid}/exe`)).toBe(false);
    await session.thaw();
    await allThawed();
  });

  test('aborted while it freezes: all is thawed before it settles', async () => {
    const abort = new AbortController();
    const attempt = coordinator.freeze(request(), abort.signal);
    const seen = attempt.catch((error: unknown) => error);
    // On a quick machine the moment in which a FIFREEZE is only intended may pass between two looks.
    await expect
      .poll(() => (existsSync(join(dir, 'frozen')) ? readFileSync(join(dir, 'frozen'), 'utf8') : ''), { interval: 1 })
      .toMatch(/intended|frozen/);
    abort.abort();
    const outcome = await seen;
    if (!(outcome instanceof Error)) await (await attempt).thaw();
    expect(existsSync(join(dir, 'frozen'))).toBe(false);
    await allThawed();
  });
});
