// Tens of thousands of mounts, as hosting with jails and Kubernetes nodes have them: a user's folder is a dozen bind
// mounts, and each container has a copy of all. `bench -- mounts` measures it on a real mount table.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { filesystemChanges } from '../../../src/freeze/judgement/changes.js';
import { createDiskLookup } from '../../../src/linux/disks.js';
import { mountsOfProcesses } from '../../../src/linux/other-namespaces.js';
import { machineViewer } from '../../../src/linux/machine-view.js';
import { mountsOfNewDevices } from '../../../src/linux/mountinfo.js';
import { makePlan } from '../../../src/freeze/judgement/plan.js';
import { atOnce, inTurns } from '../../../src/linux/turns.js';
import { FakeMachine } from '../../support/fake-machine.js';
import { tableOf } from '../../support/mount-table.js';

let dir: string;
let machine: FakeMachine;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-scale-'));
  machine = new FakeMachine(dir);
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

const FOLDERS = 'bin lib lib64 usr/bin usr/lib usr/share etc/pki opt var/spool tmp'.split(' ');

/** One filesystem `/`, one on `/home`, and bind mounts of the first under it. */
function jails(count: number): string {
  const lines = ['22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw'];
  lines.push('30 22 253:16 / /home rw,relatime shared:9 - xfs /dev/vdb1 rw');
  for (let place = 0; place < count - 2; place++) {
    const folder = FOLDERS[place % FOLDERS.length] ?? '';
    const mountpoint = `/home/jail/user${Math.floor(place / FOLDERS.length)}/${folder}`;
    lines.push(`${100 + place} 30 253:0 /${folder} ${mountpoint} rw,nosuid,relatime shared:1 - ext4 /dev/vda1 rw`);
  }
  return `${lines.join('\n')}\n`;
}

/** Of this process, in milliseconds; the best of some, since others' load makes it more. */
function cpuOf(work: () => unknown, rounds = 3): number {
  const times = Array.from({ length: rounds }, () => {
    const before = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  });
  return Math.min(...times);
}

/** Time that grows with the square would be 16 times as long. */
const AT_MOST = 9;

describe('a mount table', () => {
  test('of 40,000 bind mounts takes some four times as long as one of 10,000', () => {
    const [small, large] = [jails(10_000), jails(40_000)];
    const { filesystems } = tableOf(large);
    expect(filesystems.map(({ mounts, reachable }) => [mounts.length, reachable.length])).toEqual([
      [39_999, 39_999],
      [1, 1],
    ]);
    expect(cpuOf(() => tableOf(large)) / cpuOf(() => tableOf(small))).toBeLessThan(AT_MOST);
  });

  test('of mounts that are stacked on one place, and of filesystems of their own, likewise', () => {
    const stacked = (count: number): string =>
      Array.from(
        { length: count },
        (_none, place) => `${place + 2} ${place + 1} 8:${place} / /x rw - ext4 /dev/x rw`,
      ).join('\n');
    const table = (count: number) => tableOf(`1 0 9:1 / / rw - ext4 /dev/y rw\n${stacked(count)}\n`);
    const { filesystems } = table(10_000);
    expect(filesystems.filter(({ reachable }) => reachable.length > 0).map(({ age }) => age)).toEqual([0, 10_000]);
    expect(filesystems[5]?.unreachable).toBe('hidden under the ext4 mounted at /x, cannot be opened');
    expect(cpuOf(() => table(20_000)) / cpuOf(() => table(5_000))).toBeLessThan(AT_MOST);
  });

  test('is parsed in turns, between which the event loop answers others', async () => {
    let [turns, isOver] = [0, false];
    const others = (async () => {
      for (; !isOver; turns++) await setImmediate();
    })();
    const text = jails(40_000);
    await inTurns(
      (function* () {
        for (let round = 0; round < 3; round++) yield* mountsOfNewDevices(text, new Set());
      })(),
    );
    writeFileSync(machine.mountinfoPath, text);
    const { table } = await machineViewer(machine)();
    isOver = true;
    await others;
    expect(table.mounts).toHaveLength(40_000);
    expect(turns).toBeGreaterThan(5);
  });

  test('with 1,000 filesystems in files on one is put in order, each before the one that holds it', () => {
    const disk = machine.virtioDisk('vda', 2, 'A');
    machine.file('unused', '');
    const lines = [`22 1 ${disk.device} / / rw - ext4 /dev/vda rw`];
    for (let place = 0; place < 1_000; place++) {
      const path = `devices/virtual/block/loop${place}`;
      const device = machine.block(path, { major: 7 });
      machine.file(`${path}/loop/backing_file`, `/images/${place}.img\n`);
      lines.push(`${100 + place} 22 ${device} / /srv/${place} rw - ext4 /dev/loop${place} rw`);
    }
    const table = tableOf(`${lines.join('\n')}\n`);
    const lookup = createDiskLookup(table, machine);
    atOnce(lookup.prepare(table.filesystems));
    const { filesystems } = makePlan(table, lookup, { disks: [{ serial: 'A' }] });
    expect(filesystems.map(({ group }) => group)).toEqual(Array.from({ length: 1_001 }, (_none, group) => group));
    expect(filesystems[0]?.filesystem.mountpoint).toBe('/srv/999');
    expect(filesystems.at(-1)?.filesystem.mountpoint).toBe('/');
    expect(cpuOf(() => makePlan(table, lookup, { disks: [{ serial: 'A' }] }))).toBeLessThan(200);
  });
});

describe('other namespaces', () => {
  const namespace = (pid: number, text: string): void => {
    mkdirSync(join(machine.procRoot, String(pid), 'ns'), { recursive: true });
    symlinkSync(`mnt:[${pid}]`, join(machine.procRoot, String(pid), 'ns/mnt'));
    machine.procFile(`${pid}/comm`, 'pod\n');
    machine.procFile(`${pid}/mountinfo`, text);
  };

  test('40 copies of 2,000 mounts, of which one has one more: it is found, and no other line is looked into', () => {
    const copy = jails(2_000);
    // What is known need not even be mountinfo.
    const known = '99 30 253:0 is not looked into\n';
    for (let pid = 1; pid <= 40; pid++) namespace(pid, copy + known);
    namespace(41, `${copy}${known}5000 30 8:1 / /data rw - xfs /dev/sda1 rw\n`);
    const own = tableOf(copy);
    const found = atOnce(mountsOfProcesses(own, machine.procRoot));
    expect(found.map(({ filesystem }) => filesystem.mountpoint)).toEqual([join(machine.procRoot, '41/root/data')]);
  });

  test('are not asked while every superblock that may be mounted is known', async () => {
    const efi = machine.virtioDisk('vda', 2).device;
    machine.mount({ device: efi, mountpoint: '/boot/efi', type: 'vfat' });
    machine.file('kernel/uevent_seqnum', '7\n');
    machine.procFile('filesystems', 'nodev\tproc\n\text4\n\tvfat\n');
    machine.file('module/vfat/refcnt', '1\n');
    namespace(1, '50 1 8:1 / /elsewhere rw - vfat /dev/sda1 rw\n');
    const view = machineViewer(machine);
    expect((await view()).table.elsewhere).toEqual([]);
    // The driver has one more than this namespace knows.
    machine.file('module/vfat/refcnt', '2\n');
    expect((await view()).table.elsewhere).toHaveLength(1);
  });
});

describe('a second look', () => {
  const appended = (line: string): void => {
    const first = jails(20);
    writeFileSync(machine.mountinfoPath, `${first}${line}`);
  };
  const viewer = async () => {
    machine.file('kernel/uevent_seqnum', '7\n');
    machine.procFile('filesystems', 'nodev\tproc\n\text4\n\txfs\n');
    appended('');
    const view = machineViewer(machine);
    return { view, first: await view() };
  };

  test.each([
    ['one tmpfs more', '900 22 0:99 / /run/x rw - tmpfs tmpfs rw\n'],
    ['one NFS mount more', '900 22 0:98 / /nfs rw - nfs4 server:/x rw\n'],
    ['one bind mount more', '900 30 253:16 /y /home/y rw - xfs /dev/vdb1 rw\n'],
  ])('at a table with %s sees no change', async (_name, line) => {
    const { view, first } = await viewer();
    appended(line);
    expect(await view('held')).toBe(first);
    expect(await view('changes')).toBe(first);
    expect(await view()).not.toBe(first);
  });

  test.each([
    ['one filesystem more', '900 22 253:32 / /new rw - ext4 /dev/vdc rw\n', '/new (ext4) was mounted'],
    ['one btrfs more', '900 22 0:97 / /b rw - btrfs /dev/vdd rw\n', '/b (btrfs) was mounted'],
  ])('at a table with %s sees it', async (_name, line, what) => {
    const { view, first } = await viewer();
    appended(line);
    const now = await view('held');
    const plans = [first, now].map(({ table, lookup }) => makePlan(table, lookup, {}));
    const [then, later] = plans;
    const changes = then === undefined || later === undefined ? [] : filesystemChanges(then, later);
    expect(changes.map(({ what: name, reason }) => `${name} ${reason}`)).toEqual([
      `${what} after the session was planned`,
    ]);
  });

  test('while applications wait reads no long table, and sees what drivers list even so', async () => {
    machine.file('kernel/uevent_seqnum', '7\n');
    machine.procFile('filesystems', 'nodev\tproc\n\text4\n\txfs\n');
    writeFileSync(machine.mountinfoPath, jails(10_000));
    const view = machineViewer(machine);
    const first = await view();
    rmSync(machine.mountinfoPath);
    expect(await view('held')).toBe(first);
    machine.virtioDisk('vdc', 4);
    machine.file('fs/xfs/vdc/log/x', '');
    expect((await view('held')).table.elsewhere.map(({ filesystem }) => filesystem.source)).toEqual(['/dev/vdc']);
    await expect(view('changes')).rejects.toThrow('ENOENT');
  });
});
