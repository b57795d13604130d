// The user-mode guest as a fixture: what every test on one stands on. What both kinds share is in fixture.test.ts, too.
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  bootGuest,
  guestImage,
  stallDisk,
  startStallProbe,
  type GuestImage,
  type QemuGuest,
  type UserModeGuest,
} from '../../src/testing/index.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { kernels } from '../support/variants.js';

const BUILD_LIMIT_MS = 500_000;
/** All that a guest of these tests may need of a kernel, besides what is built in. */
const MODULES = [
  'dm-flakey',
  'dm-dust',
  'dm-delay',
  'dm-snapshot',
  'dm-thin-pool',
  'dm-crypt',
  'dm-log-writes',
  'dm-raid',
];
const MORE_MODULES = ['loop', 'overlay', 'fuse', 'vfat', 'vsock_loopback'];

/** Processes whose command line names this folder. */
async function processesOf(dir: string): Promise<readonly string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = pids.map(async (pid) => {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    return command.includes(dir) && !command.includes('grep') ? [pid] : [];
  });
  return (await Promise.all(found)).flat();
}

requires(...USER_MODE)('the user-mode guest', () => {
  let image: GuestImage;
  beforeAll(async () => {
    image = await guestImage();
  }, BUILD_LIMIT_MS);

  describe.for(kernels('6.12'))('kernel %s', (kernel) => {
    const shared = sharedGuest(async () => await bootGuest({ kind: 'user-mode', image, kernel }));

    test('is the guest that was promised', async () => {
      const guest: UserModeGuest = shared();
      expect(guest.kernel).toBe(kernel);
      expect((await guest.exec(['/bin/uname', '-r'])).stdout).toMatch(new RegExp(`^${kernel.replace('.', '\\.')}\\.`));
      expect(await guest.waitForSystem()).toBe('running');
      const mounts =
        'for m in / /srv/data; do findmnt -rno SOURCE,TARGET,FSTYPE $m; done; findmnt -rno FSTYPE -t hostfs';
      const { stdout } = await guest.exec(mounts, { check: false });
      expect(stdout.trim().split('\n')).toEqual(['/dev/ubda / ext4', '/dev/ubdb /srv/data xfs']);
      expect(guest.disks.map(({ node, device, path: inGuest }) => [node, device, inGuest])).toEqual([
        ['root', 'ubd0', '/dev/ubda'],
        ['data', 'ubd1', '/dev/ubdb'],
      ]);
      for (const module of [...MODULES, ...MORE_MODULES]) await guest.exec(['/sbin/modprobe', module]);
    });

    test('starts PostgreSQL, with its log on the other disk, durable', async () => {
      const guest = shared();
      await guest.startPostgres();
      const { data } = image.postgresql;
      expect((await guest.exec(`stat -c %m ${data}/base ${data}/pg_wal/.`)).stdout).toBe('/\n/srv/data\n');
      const ask = `cd /; runuser -u postgres -- psql -d demo -Atc "SELECT current_setting('fsync') || current_setting('full_page_writes')"`;
      expect((await guest.exec(ask)).stdout.trim()).toBe('onon');
    });

    test('takes disks while it runs, and gives them back', async () => {
      const guest = shared();
      const disk = await guest.addBlankDisk('extra', 64);
      expect(disk.path).toBe('/dev/ubdc');
      await guest.exec(`mkfs.ext4 -q ${disk.path} && mount ${disk.path} /mnt && echo x >/mnt/x && umount /mnt`);
      expect((await guest.exec(['/sbin/blockdev', '--getsize64', disk.path])).stdout.trim()).toBe(String(64 * 2 ** 20));
      await guest.unplugDisk('extra');
      expect((await guest.exec(['/usr/bin/test', '-e', disk.path], { check: false })).exitCode).toBe(1);
      const second = await guest.addBlankDisk('again', 32);
      expect(second.path).toBe('/dev/ubdc');
      await guest.unplugDisk('again');
    });
  });

  describe('one guest', () => {
    const shared = sharedGuest(async () => await bootGuest({ kind: 'user-mode', image }));

    test('runs commands: arguments, a shell line, input, a failure, a time limit', async () => {
      const guest = shared();
      expect(await guest.exec(['/bin/echo', 'a b', '$HOME'])).toMatchObject({ exitCode: 0, stdout: 'a b $HOME\n' });
      expect(await guest.exec('echo one; echo two >&2')).toMatchObject({ stdout: 'one\n', stderr: 'two\n' });
      // More than the line takes at once, both ways.
      const much = 'x'.repeat(200_000);
      expect((await guest.exec(['/bin/cat'], { input: much })).stdout).toBe(much);
      await expect(guest.exec('exit 3')).rejects.toMatchObject({ code: 'E_GUEST_COMMAND' });
      await expect(guest.exec('sleep 60', { timeoutMs: 500 })).rejects.toMatchObject({ code: 'E_DEADLINE' });
      expect((await guest.exec('pgrep -x sleep', { check: false })).stdout).toBe('');
    });

    test('takes files and folders with their modes, and shares a folder outside its disks', async () => {
      const guest = shared();
      const program = path.join(guest.dir, 'program');
      await writeFile(program, '#!/bin/sh\necho ran\n', { mode: 0o755 });
      await guest.copyIn([program, fileURLToPath(new URL('../../src/wire', import.meta.url))], '/srv/files');
      expect(
        (await guest.exec('/srv/files/program; stat -c "%U %a" /srv/files/program; ls /srv/files/wire')).stdout,
      ).toMatch(/^ran\nroot 755\n[\s\S]*lexer\.ts/);
      const folder = await guest.sharedFolder();
      await guest.exec(`echo from the guest >${folder.guest}/note; sync`);
      expect(await readFile(path.join(folder.host, 'note'), 'utf8')).toBe('from the guest\n');
      await writeFile(path.join(folder.host, 'answer'), 'from the host\n');
      expect((await guest.exec(`cat ${folder.guest}/answer`)).stdout).toBe('from the host\n');
    });

    test('stands still while paused; its time goes on', async () => {
      const guest = shared();
      const uptime = async (): Promise<number> =>
        Number((await guest.exec(['/usr/bin/cut', '-d.', '-f1', '/proc/uptime'])).stdout);
      const counting = await guest.start('while :; do echo x >>/run/count; sleep 0.1; done');
      await expect.poll(async () => (await guest.exec('wc -l </run/count', { check: false })).stdout).toMatch(/^[1-9]/);
      const before = await uptime();
      await guest.pause();
      await expect(guest.exec('true', { timeoutMs: 1000 })).rejects.toMatchObject({ code: 'E_DEADLINE' });
      await sleep(2000);
      await guest.resume();
      expect(await uptime()).toBeGreaterThanOrEqual(before + 2);
      await counting.kill();
    });

    test('the stall probe runs in it', async () => {
      await using probe = await startStallProbe(shared(), ['/var/tmp', '/srv/data']);
      await probe.reset();
      await sleep(500);
      for (const { writes } of await probe.gaps()) expect(writes).toBeGreaterThan(0);
    });

    test('says what it cannot do, and who can', async () => {
      const guest = shared();
      const message = 'a guest of kind user-mode has not a QMP monitor (monitor); boot one of kind qemu';
      expect(() => {
        guest.requires('shared-folder', 'monitor');
      }).toThrow(message);
      await expect(bootGuest({ kind: 'user-mode', needs: ['monitor'] })).rejects.toMatchObject({
        code: 'E_CAPABILITY',
      });
      await expect(bootGuest({ kind: 'user-mode', cpus: 2 })).rejects.toThrow('more than one processor');
      await expect(bootGuest({ kind: 'qemu', kernel: '7.2' })).rejects.toThrow('a choice of kernels');
      await expect(bootGuest({ kind: 'user-mode', kernel: '5.10' as '6.1' })).rejects.toThrow(
        '6.1, 6.12, 7.2, found 5.10',
      );
      await expect(guestImage('debian-11')).rejects.toThrow(
        'debian-12, debian-13, debian-sid, podman-debian-12, found debian-11',
      );
      await expect(stallDisk(guest as unknown as QemuGuest, 'data')).rejects.toThrow('a QMP monitor');
      await expect(guest.hotplugDisk(path.join(guest.dir, 'nothing.raw'), { name: 'none' })).rejects.toThrow(
        'nothing.raw',
      );
      await expect(guest.addBlankDisk('Bad Name', 1)).rejects.toMatchObject({ code: 'E_DISK_NAME' });
      expect(guest.disks).toHaveLength(2);
    });

    test('the channel serves one client at a time, the next one when that is gone', async () => {
      const guest = shared();
      // Nobody in the guest answers there: what is sent is seen on the line itself.
      const listening = await guest.start('stty -F /dev/ttyS1 raw -echo; timeout 20 head -c 6 /dev/ttyS1');
      await guest.exec('until pgrep -x head; do sleep 0.02; done');
      const [first, second] = [connect(guest.qgaPath), connect(guest.qgaPath)];
      await Promise.all(
        [first, second].map(async (socket) => await new Promise((resolve) => socket.once('connect', resolve))),
      );
      second.write('two');
      await sleep(200);
      first.write('one');
      await sleep(200);
      first.destroy();
      expect((await listening.wait()).stdout).toBe('onetwo');
      second.destroy();
    });
  });

  test('a power cut loses what was not synced and nothing else; it boots again from those disks', async () => {
    await using first = await bootGuest({ kind: 'user-mode', image });
    await first.waitForSystem();
    await first.exec('echo kept >/srv/data/kept; sync -f /srv/data/kept; echo lost >/srv/data/lost');
    const { dir } = first;
    await first.kill();
    expect(first.isOver).toBe(true);
    expect(await processesOf(dir)).toEqual([]);
    const bases = Object.fromEntries(first.disks.map((disk) => [disk.node, disk]));
    await using second = await bootGuest({ kind: 'user-mode', image, bases });
    expect(await second.waitForSystem()).toBe('running');
    expect((await second.exec(['/bin/cat', '/srv/data/kept'])).stdout).toBe('kept\n');
    expect((await second.exec(['/bin/cat', '/srv/data/lost'], { check: false })).stdout).toBe('');
    await second.shutdown();
    expect(await processesOf(second.dir)).toEqual([]);
  });

  test('nothing of a guest outlives whoever booted it', async () => {
    const tsx = fileURLToPath(new URL('../../node_modules/.bin/tsx', import.meta.url));
    const owner = execa(tsx, [fileURLToPath(new URL('../fixtures/mortal-fixture.ts', import.meta.url))], {
      reject: false,
      timeout: 120_000,
      stderr: 'inherit',
    });
    const line = await new Promise<string>((resolve) =>
      owner.stdout.once('data', (chunk: Buffer) => {
        resolve(String(chunk));
      }),
    );
    const { dir, pid } = JSON.parse(line) as { dir: string; pid: number };
    try {
      expect(await processesOf(dir)).toContain(String(pid));
      // The kernel's parent is the namespace's init, whose parent is what was started.
      process.kill(await parentOf(await parentOf(await parentOf(pid))), 'SIGKILL');
      await expect.poll(async () => await processesOf(dir), { timeout: 10_000 }).toEqual([]);
    } finally {
      owner.kill('SIGKILL');
      await owner;
      await rm(dir, { recursive: true, force: true });
    }
  });
});

async function parentOf(pid: number): Promise<number> {
  return Number(/^PPid:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);
}
