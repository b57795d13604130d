// The guest fixture itself: what every other vm test stands on.
import { access, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { Client } from 'pg';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import {
  AgentChannel,
  armInGuest,
  bootGuest,
  guestImage,
  guestPid,
  installedGuest,
  MOMENTS,
  proxySocket,
  restoreGuest,
  savedGuest,
  saveState,
  signalGuest,
  stallDisk,
  startStallProbe,
  type QemuGuest,
} from '../../src/testing/index.js';
import { requires } from '../support/requires.js';

const BUILD_LIMIT_MS = 400_000;
let booted: string;

async function query(guest: QemuGuest, sql: string): Promise<unknown[]> {
  const client = new Client({ host: '127.0.0.1', port: guest.postgresPort, user: 'demo', database: 'demo' });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows.map((row) => Object.values(row)[0]);
  } finally {
    await client.end();
  }
}

/** A package whose "agent" is Debian's own, so that this test needs nothing that it does not test. */
async function standInAgent(work: string): Promise<string> {
  const root = path.join(work, 'root');
  await mkdir(path.join(root, 'DEBIAN'), { recursive: true });
  await mkdir(path.join(root, 'lib/systemd/system'), { recursive: true });
  await writeFile(
    path.join(root, 'DEBIAN/control'),
    'Package: stand-in-agent\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: test\n',
  );
  const postinst = '#!/bin/sh\nsystemctl daemon-reload\nsystemctl start --no-block stand-in-agent.service\n';
  await writeFile(path.join(root, 'DEBIAN/postinst'), postinst, { mode: 0o755 });
  await writeFile(
    path.join(root, 'lib/systemd/system/stand-in-agent.service'),
    '[Service]\nExecStart=/usr/sbin/qemu-ga -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run/stand-in\nRuntimeDirectory=stand-in\n',
  );
  const deb = path.join(work, 'stand-in.deb');
  await execa('dpkg-deb', ['--root-owner-group', '-Znone', '-b', root, deb]);
  return deb;
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
  'mkfs.ext4',
  'mkfs.xfs',
  'cpio',
  'gcc',
)('the guest fixture', () => {
  beforeAll(async () => {
    booted = await savedGuest();
  }, BUILD_LIMIT_MS);

  describe('a restored guest', () => {
    test('runs commands: arguments, a shell line, input, a failure, a time limit', async () => {
      await using guest = await restoreGuest(booted);
      expect(await guest.exec(['/bin/echo', 'a b', '$HOME'])).toEqual({
        exitCode: 0,
        stdout: 'a b $HOME\n',
        stderr: '',
      });
      expect((await guest.exec('tr a-z A-Z', { input: 'größe\n' })).stdout).toBe('GRößE\n');
      expect(await guest.exec('echo no >&2; exit 3', { check: false })).toEqual({
        exitCode: 3,
        stdout: '',
        stderr: 'no\n',
      });
      await expect(guest.exec('echo no >&2; exit 3')).rejects.toMatchObject({ code: 'E_GUEST_COMMAND' });
      await expect(guest.exec('sleep 60', { timeoutMs: 300 })).rejects.toMatchObject({ code: 'E_DEADLINE' });
      expect((await guest.exec('pgrep -c sleep', { check: false })).stdout).toBe('0\n');
      const [first, second] = await Promise.all([guest.exec('sleep 0.2; echo 1'), guest.exec('echo 2')]);
      expect(first.stdout + second.stdout).toBe('1\n2\n');
    });

    test('is the guest that was promised', async () => {
      await using guest = await restoreGuest(booted);
      expect(await guest.waitForSystem()).toBe('running');
      const { stdout: mounts } = await guest.exec(
        'findmnt -rno SOURCE,TARGET,FSTYPE /; findmnt -rno SOURCE,TARGET,FSTYPE /srv/data',
      );
      expect(mounts.trim().split('\n')).toEqual(['/dev/vda / ext4', '/dev/vdb /srv/data xfs']);
      expect(guest.disks.map(({ node, device, path: inGuest }) => [node, device, inGuest])).toEqual([
        ['root', 'disk-root', '/dev/disk/by-id/virtio-root'],
        ['data', 'disk-data', '/dev/disk/by-id/virtio-data'],
      ]);
      await guest.exec('test /dev/disk/by-id/virtio-data -ef /dev/vdb');
      const skewMs = Math.abs(Number((await guest.exec('date +%s%3N')).stdout) - Date.now());
      expect(skewMs).toBeLessThan(5000);
      // PostgreSQL: data on the root disk, write-ahead log on the data disk, durable, reachable as `demo`.
      expect(await query(guest, "SELECT current_setting('fsync') || current_setting('full_page_writes')")).toEqual([
        'onon',
      ]);
      expect(await query(guest, "SELECT extname FROM pg_extension WHERE extname = 'amcheck'")).toEqual(['amcheck']);
      const { stdout: wal } = await guest.exec(
        `stat -c %m ${guest.image.postgresql.data}/base ${guest.image.postgresql.data}/pg_wal/.`,
      );
      expect(wal).toBe('/\n/srv/data\n');
      // Channel 0 is free for the agent under test, and nobody answers there.
      await using channel = new AgentChannel(guest.qgaPath);
      await expect(channel.execute('guest-ping', undefined, 500)).rejects.toMatchObject({ code: 'E_DEADLINE' });
      expect((await guest.exec('systemctl is-active qemu-guest-agent.service', { check: false })).stdout.trim()).toBe(
        'inactive',
      );
      await guest.exec('test -c /dev/virtio-ports/org.qemu.guest_agent.0');
    });

    test('leaves no trace in the state and none on the host', async () => {
      let gone: { dir: string; pid: number };
      {
        await using guest = await restoreGuest(booted);
        gone = { dir: guest.dir, pid: guest.pid };
        await guest.exec('echo trace >/root/trace; echo trace >/srv/data/trace; sync');
      }
      await expect(access(gone.dir)).rejects.toMatchObject({ code: 'ENOENT' });
      await expect(access(`/proc/${gone.pid}`)).rejects.toMatchObject({ code: 'ENOENT' });
      await using again = await restoreGuest(booted);
      expect((await again.exec('ls /root/trace /srv/data/trace', { check: false })).stdout).toBe('');
    });

    test('takes disks while it runs, and files on them', async () => {
      await using guest = await restoreGuest(booted);
      const disk = await guest.addBlankDisk('extra', 64);
      expect(disk.size).toBe(64 * 2 ** 20);
      await guest.exec(
        'mkfs.ext4 -q /dev/disk/by-id/virtio-extra; mount /dev/disk/by-id/virtio-extra /mnt; echo x >/mnt/x; umount /mnt',
      );
      await expect(saveState(guest, path.join(guest.dir, 'state'))).rejects.toMatchObject({
        code: 'E_SAVE_HOTPLUGGED',
      });
      await guest.unplugDisk('extra');
      expect((await guest.exec('ls /dev/disk/by-id')).stdout.trim().split('\n')).toEqual([
        'virtio-data',
        'virtio-root',
      ]);
      await guest.hotplugDisk(disk.file, { name: 'again', readOnly: true });
      expect((await guest.exec('mount -o ro /dev/disk/by-id/virtio-again /mnt; cat /mnt/x')).stdout).toBe('x\n');

      const folder = path.join(guest.dir, 'folder');
      await mkdir(folder);
      await writeFile(path.join(folder, 'script'), '#!/bin/sh\necho here\n', { mode: 0o755 });
      await guest.copyIn([folder], '/run/in');
      expect((await guest.exec(['/run/in/folder/script'])).stdout).toBe('here\n');
      expect(guest.disks.map(({ node }) => node)).toEqual(['root', 'data', 'again']);
    });

    test('stands still while paused, and its clock of running time with it', async () => {
      await using guest = await restoreGuest(booted);
      const uptime = async () => Number((await guest.exec('cat /proc/uptime')).stdout.split(' ')[0]);
      const before = await uptime();
      await guest.pause();
      expect(await guest.runState()).toBe('paused');
      await new Promise((resolve) => setTimeout(resolve, 5000));
      await guest.resume();
      expect((await uptime()) - before).toBeLessThan(4);
    });

    test('is saved with what was done in it, and found again', async () => {
      const state = await mkdtemp(path.join(tmpdir(), 'fsb-test-state-'));
      try {
        {
          await using guest = await restoreGuest(booted);
          await guest.exec('echo kept >/root/kept; sleep 1000 >/dev/null 2>&1 & echo $! >/run/kept-pid');
          await query(guest, 'CREATE TABLE kept AS SELECT 42 AS answer');
          await saveState(guest, state);
        }
        const tookMs: number[] = [];
        for (let n = 0; n < 3; n++) {
          const start = performance.now();
          await using guest = await restoreGuest(state);
          tookMs.push(performance.now() - start);
          expect((await guest.exec('cat /root/kept; kill -0 $(cat /run/kept-pid)')).stdout).toBe('kept\n');
          expect(await query(guest, 'SELECT answer FROM kept')).toEqual([42]);
        }
        process.stderr.write(`restore: ${tookMs.map((ms) => ms.toFixed(0)).join(', ')} ms\n`);
        // One layer over the image, whatever it was restored from: a state stands on its own.
        const { stdout } = await execa('qemu-img', ['info', '--output=json', path.join(state, 'root.qcow2')]);
        const image = await guestImage();
        expect(JSON.parse(stdout)).toMatchObject({ 'backing-filename': image.disks[0]?.file });
        // A damaged state is refused, with QEMU's own reason and nothing left behind.
        vi.stubEnv('TMPDIR', path.join(state, 'tmp'));
        await mkdir(path.join(state, 'tmp'));
        await truncate(path.join(state, 'memory'), 1_000_000);
        await expect(restoreGuest(state)).rejects.toMatchObject({ code: 'E_STATE_MISMATCH' });
        expect(await readdir(path.join(state, 'tmp'))).toEqual([]);
      } finally {
        vi.unstubAllEnvs();
        await rm(state, { recursive: true, force: true });
      }
    });
  });

  test('a guest boots from other disks than the image, and shuts down cleanly', async () => {
    await using first = await restoreGuest(booted);
    await first.exec('echo moved >/root/moved; echo moved >/srv/data/moved');
    await query(first, 'CREATE TABLE moved AS SELECT 7 AS answer');
    await first.shutdown();
    const bases = Object.fromEntries(first.disks.map((disk) => [disk.node, disk]));
    const before = await readFile(first.disk('data').file);
    await using second = await bootGuest({ bases });
    expect(await second.waitForSystem()).toBe('running');
    await second.startPostgres();
    expect((await second.exec('cat /root/moved /srv/data/moved')).stdout).toBe('moved\nmoved\n');
    expect(await query(second, 'SELECT answer FROM moved')).toEqual([7]);
    expect(before.equals(await readFile(first.disk('data').file))).toBe(true);
  });

  test('packages are installed once, the agent they bring answers on channel 0, and the state is reused', async () => {
    const work = await mkdtemp(path.join(tmpdir(), 'fsb-test-deb-'));
    try {
      const deb = await standInAgent(work);
      const state = await installedGuest({ debs: [deb] });
      expect(await installedGuest({ debs: [deb] })).toBe(state);
      await using guest = await restoreGuest(state);
      await using channel = new AgentChannel(guest.qgaPath);
      expect(await channel.execute('guest-ping')).toEqual({});
      expect(guest.disks.map(({ node }) => node)).toEqual(['root', 'data']);
      await rm(state, { recursive: true });
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });

  describe('faults', () => {
    test('a process is stopped, continued and killed at a moment', async () => {
      await using guest = await restoreGuest(booted);
      const victim = await guest.start('while :; do echo x >/run/alive; sleep 0.05; done');
      await guest.exec(`echo ${victim.pid} >/run/victim`);
      expect(await guestPid(guest, { pidFile: '/run/victim' })).toBe(victim.pid);
      expect(await guestPid(guest, { unit: 'fsb-exec.service' })).toBeGreaterThan(1);
      await signalGuest(guest, victim.pid, 'STOP');
      const beats = async () => {
        await guest.exec('rm -f /run/alive; sleep 0.5');
        return (await guest.exec('test -e /run/alive', { check: false })).exitCode === 0;
      };
      expect(await beats()).toBe(false);
      await signalGuest(guest, victim.pid, 'CONT');
      expect(await beats()).toBe(true);
      const armed = await armInGuest(guest, '[ -e /run/moment ]', `kill -KILL ${victim.pid}`);
      expect(await beats()).toBe(true);
      await guest.exec('touch /run/moment');
      await armed.fired;
      expect(await victim.wait()).toMatchObject({ exitCode: 137 });
      const never = await armInGuest(guest, '[ -e /run/never ]', 'true', { timeoutMs: 500 });
      await expect(never.fired).rejects.toMatchObject({ code: 'E_FAULT_MISSED' });
      await expect(guestPid(guest, { unit: 'qemu-guest-agent.service' })).rejects.toMatchObject({
        code: 'E_NO_PROCESS',
      });
    });

    test('the moment at which all is frozen is told from the one before', async () => {
      await using guest = await restoreGuest(booted);
      const mark = async (...states: string[]) => {
        const lines = states.map((state, n) => `${state} 2${n} 254:${n} /mnt${n}\n`);
        const input = `fsfreeze-bridge 1 1 1 id -\n${lines.join('')}`;
        await guest.exec(
          'mkdir -p /run/fsfreeze-bridge; cat >/run/frozen.new; mv /run/frozen.new /run/fsfreeze-bridge/frozen',
          { input },
        );
      };
      const reached: string[] = [];
      const freezing = await armInGuest(guest, MOMENTS.freezing, 'cat /proc/uptime >/run/freezing');
      const frozen = await armInGuest(guest, MOMENTS.frozen, 'cat /proc/uptime >/run/frozen');
      void freezing.fired.then(() => reached.push('freezing'));
      void frozen.fired.then(() => reached.push('frozen'));
      await mark('frozen', 'intended');
      await freezing.fired;
      await mark('refused', 'intended');
      await mark('refused', 'refused');
      await guest.exec('sleep 0.5');
      expect(reached).toEqual(['freezing']);
      await mark('refused', 'frozen');
      await frozen.fired;
    });

    test('a stalled disk is felt by the stall probe, on that filesystem alone', async () => {
      await using guest = await restoreGuest(booted);
      await using probe = await startStallProbe(guest, ['/', '/srv/data']);
      await probe.reset();
      {
        await using stall = await stallDisk(guest, 'data');
        await new Promise((resolve) => setTimeout(resolve, 2000));
        expect(stall.device).toBe('disk-data');
      }
      const [root, data] = await probe.gaps();
      expect(data?.longestMs).toBeGreaterThan(1500);
      expect(root?.longestMs).toBeLessThan(data?.longestMs ?? 0);
      expect(root?.writes).toBeGreaterThan(10);
      await probe.reset();
      const [, after] = await probe.gaps();
      expect(after?.longestMs).toBeLessThan(data?.longestMs ?? 0);
    });

    test('a freeze by the stock agent is felt by the stall probe, and commands still run', async () => {
      await using guest = await restoreGuest(booted);
      await using probe = await startStallProbe(guest, ['/', '/srv/data']);
      await probe.reset();
      // A freezer of its own: the stock agent would refuse commands while it holds the freeze.
      await guest.exec(
        'cp /sbin/fsfreeze /run/fsfreeze; (sleep 1; fsfreeze -u /srv/data) >/dev/null 2>&1 & /run/fsfreeze -f /srv/data',
      );
      expect((await guest.exec('findmnt -no TARGET /srv/data')).stdout).toBe('/srv/data\n');
      await guest.exec('until echo >/srv/data/thawed; do :; done');
      const [root, data] = await probe.gaps();
      expect(data?.longestMs).toBeGreaterThan(700);
      expect(root?.longestMs).toBeLessThan(data?.longestMs ?? 0);
    });

    test('a connection loses its replies, and is cut', async () => {
      await using guest = await restoreGuest(booted);
      guest.stockAgent.close();
      await using proxy = await proxySocket(guest.stockAgent.path, path.join(guest.dir, 'proxy.sock'));
      await using channel = new AgentChannel(proxy.path);
      expect(await channel.execute('guest-ping')).toEqual({});
      proxy.holdReplies();
      await expect(channel.execute('guest-get-time', undefined, 300)).rejects.toMatchObject({ outcome: 'unknown' });
      proxy.releaseReplies();
      expect(await channel.execute('guest-ping')).toEqual({});
      proxy.cut();
      await new Promise((resolve) => setTimeout(resolve, 200));
      await expect(channel.execute('guest-ping')).resolves.toEqual({}); // connects anew
      const refused = connect(proxy.path);
      await new Promise((resolve) => refused.once('connect', resolve));
      refused.destroy();
    });
  });
});
