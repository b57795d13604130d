// Filesystems mounted where this program does not see them, over a made-up /proc and /sys.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDiskLookup } from '../../../src/linux/disks.js';
import {
  hasUnlisted,
  listedSuperblocks,
  mountsOfProcesses,
  unknownSuperblocks,
  unseen,
} from '../../../src/linux/other-namespaces.js';
import { machineViewer, type MachineView } from '../../../src/linux/machine-view.js';
import type { MountElsewhere, MountTable } from '../../../src/linux/mounts.js';
import { makePlan } from '../../../src/freeze/judgement/plan.js';
import { atOnce } from '../../../src/linux/turns.js';
import { FakeMachine } from '../../support/fake-machine.js';
import { tableOf } from '../../support/mount-table.js';

let dir: string;
let machine: FakeMachine;
let procRoot: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-elsewhere-'));
  machine = new FakeMachine(dir);
  procRoot = join(dir, 'proc');
  machine.mount({ device: machine.virtioDisk('vda', 2, 'A').device, mountpoint: '/', source: '/dev/vda' });
  processOf('self', 1);
  processOf('1', 1);
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

function processOf(pid: string, namespace: number, ...mounts: string[]): void {
  mkdirSync(join(procRoot, pid, 'ns'), { recursive: true });
  symlinkSync(`mnt:[${namespace}]`, join(procRoot, pid, 'ns/mnt'));
  writeFileSync(join(procRoot, pid, 'comm'), `name-${pid}\n`);
  writeFileSync(join(procRoot, pid, 'mountinfo'), mounts.map((line) => `${line}\n`).join(''));
}

const own = (): MountTable => tableOf(readFileSync(machine.mountinfoPath));
const places = (found: readonly MountElsewhere[]): string[] => found.map(({ filesystem }) => filesystem.mountpoint);
const nowhere = (others: readonly MountElsewhere[] = []): readonly MountElsewhere[] => {
  const table = own();
  const known = [...table.filesystems, ...others.map(({ filesystem }) => filesystem)];
  const lookup = createDiskLookup(table, machine);
  const unknown = unknownSuperblocks(listedSuperblocks(machine.sysRoot), known, lookup, machine.sysRoot);
  return unknown.map((superblock) => unseen(superblock, procRoot));
};

describe('mount tables of processes', () => {
  test('one of another namespace is named with a process of it, once; what we have too is not', () => {
    const root = `20 1 ${machine.number('vda')} /var/lib/x / rw - ext4 /dev/vda rw`;
    processOf('40', 2, root, '21 20 254:9 / /data\\040x rw - xfs /dev/vdb rw', '22 20 0:5 / /proc rw - proc proc rw');
    processOf('41', 2, 'is not looked at again');
    processOf('42', 3, root, '31 20 254:9 / /again rw - xfs /dev/vdb rw', '32 20 254:8 / /ro ro - ext4 /dev/vdc ro');
    const found = atOnce(mountsOfProcesses(own(), procRoot));
    expect(found.map(({ filesystem, reason }) => [filesystem.mountpoint, filesystem.readOnly, reason])).toEqual([
      [
        join(procRoot, '40/root/data x'),
        false,
        'mounted in the mount namespace of process 40 (name-40) alone, not touched',
      ],
      [join(procRoot, '42/root/ro'), true, 'mounted in the mount namespace of process 42 (name-42) alone, not touched'],
    ]);
  });

  test('a process that is gone, or whose table cannot be read, speaks for nobody', () => {
    mkdirSync(join(procRoot, '50'));
    processOf('51', 4, 'nonsense');
    processOf('52', 4, '20 1 254:7 / /late rw - ext4 /dev/vdd rw');
    expect(places(atOnce(mountsOfProcesses(own(), procRoot)))).toEqual([join(procRoot, '52/root/late')]);
  });
});

describe('superblocks that drivers list', () => {
  test('one in no mount table is found; ours, those of other namespaces and what is no superblock are not', () => {
    const { path: b } = machine.virtioDisk('vdb', 3);
    const { path: c } = machine.virtioDisk('vdc', 4);
    machine.virtioDisk('vdd', 5);
    for (const entry of ['ext4/vda', 'ext4/features', 'xfs/stats', 'xfs/vdb', 'ext4/vdc', 'f2fs/vdd'])
      mkdirSync(join(machine.sysRoot, 'fs', entry), { recursive: true });
    machine.link('fs/btrfs/FSID/devices/vdb', b);
    machine.link('fs/btrfs/OTHER/devices/vdc', c);
    mkdirSync(join(procRoot, 'fs/ext4/vdc'), { recursive: true });
    writeFileSync(join(procRoot, 'fs/ext4/vdc/options'), 'ro\nbarrier\n');
    processOf('60', 5, `20 1 ${machine.number('vdb')} / /b rw - xfs /dev/vdb rw`);
    const found = nowhere(atOnce(mountsOfProcesses(own(), procRoot)));
    expect(found.map(({ filesystem: { type, mountpoint, readOnly } }) => [type, mountpoint, readOnly])).toEqual([
      ['ext4', '/dev/vdc', true],
      ['f2fs', '/dev/vdd', false],
      ['btrfs', '/dev/vdc', false],
    ]);
  });

  test('a btrfs that is mounted by any of its devices is known', () => {
    const { path: b } = machine.virtioDisk('vdb', 3);
    const { path: c } = machine.virtioDisk('vdc', 4);
    machine.link('fs/btrfs/FSID/devices/vdb', b);
    machine.link('fs/btrfs/FSID/devices/vdc', c);
    machine.mount({ device: '0:40', mountpoint: '/pool', type: 'btrfs', source: '/dev/vdc' });
    expect(nowhere()).toEqual([]);
  });
});

describe('in a plan', () => {
  const look = async (): Promise<MachineView> => await machineViewer({ ...roots(), procRoot })();
  const roots = () => ({
    sysRoot: machine.sysRoot,
    udevRoot: machine.udevRoot,
    mountinfoPath: machine.mountinfoPath,
  });
  const foreign = (superOptions: string): void => {
    const { device } = machine.virtioDisk('vdb', 3, 'B');
    processOf('70', 6, `20 1 ${device} / /data rw - ext4 /dev/vdb ${superOptions}`);
  };

  test('read-write on a disk of the cut: concerned, left, named; on another disk: only named', async () => {
    foreign('rw');
    const { table, lookup } = await look();
    const all = makePlan(table, lookup, {});
    const there = { action: 'leave', concerned: true, inCut: true };
    expect(all.filesystems.find(({ filesystem }) => filesystem.source === '/dev/vdb')).toMatchObject(there);
    expect(all.skipped).toEqual([
      {
        what: join(procRoot, '70/root/data'),
        reason: 'mounted in the mount namespace of process 70 (name-70) alone, not touched',
      },
    ]);
    const ofCut = (serial: string): boolean | undefined =>
      makePlan(table, lookup, { disks: [{ serial }] }).filesystems.find(
        ({ filesystem: { source } }) => source === '/dev/vdb',
      )?.concerned;
    expect([ofCut('A'), ofCut('B')]).toEqual([false, true]);
    expect(
      makePlan(table, lookup, { mountpoints: ['/'] }).filesystems.filter(({ concerned }) => concerned),
    ).toHaveLength(1);
  });

  test('read-only: nothing to hold', async () => {
    foreign('ro');
    const { table, lookup } = await look();
    expect(makePlan(table, lookup, {}).filesystems.filter(({ concerned }) => concerned)).toHaveLength(1);
  });

  test('a remembered look: a quick one sees what drivers list, the other one every process', async () => {
    machine.file('kernel/uevent_seqnum', '7\n');
    const view = machineViewer({ ...roots(), procRoot });
    const first = await view();
    expect(await view()).toBe(first);
    expect(await view('changes')).toBe(first);
    foreign('rw');
    expect(await view('changes')).toBe(first);
    const second = await view();
    expect(places(second.table.elsewhere)).toEqual([join(procRoot, '70/root/data')]);
    expect(await view()).toBe(second);
    machine.virtioDisk('vdc', 4);
    mkdirSync(join(machine.sysRoot, 'fs/xfs/vdc'), { recursive: true });
    const third = await view('changes');
    expect(places(third.table.elsewhere)).toEqual([join(procRoot, '70/root/data'), '/dev/vdc']);
    expect(await view('changes')).toBe(third);
  });
});

describe('whether processes must be asked again', () => {
  const registered = (...types: string[]): void => {
    writeFileSync(join(procRoot, 'filesystems'), ['nodev\tproc', ...types.map((type) => `\t${type}`), ''].join('\n'));
  };
  const unlisted = (): boolean => hasUnlisted(own(), { procRoot, sysRoot: machine.sysRoot });

  test('not where every driver lists its superblocks', () => {
    registered('ext3', 'ext2', 'ext4', 'xfs', 'btrfs', 'squashfs', 'iso9660');
    expect(unlisted()).toBe(false);
  });

  test.each(['vfat', 'jfs', 'fuseblk', 'ntfs3'])('where there is %s, which does not', (type) => {
    registered('ext4', type);
    expect(unlisted()).toBe(true);
  });

  test('where ext2 has a driver of its own, and where nobody knows', () => {
    expect(unlisted()).toBe(true);
    registered('ext4', 'ext2');
    mkdirSync(join(machine.sysRoot, 'module/ext2/parameters'), { recursive: true });
    expect(unlisted()).toBe(true);
  });

  test('a mount that no driver lists is found by the next look; of those that are listed nobody is asked', async () => {
    machine.file('kernel/uevent_seqnum', '7\n');
    registered('ext4');
    const { mountinfoPath, sysRoot, udevRoot } = machine;
    const view = machineViewer({ mountinfoPath, sysRoot, udevRoot, procRoot });
    expect((await view()).table.elsewhere).toEqual([]);
    processOf('40', 2, '21 20 254:9 / /efi rw - vfat /dev/vdb1 rw');
    expect((await view()).table.elsewhere).toEqual([]);
    registered('ext4', 'vfat');
    expect(places((await view()).table.elsewhere)).toEqual([join(procRoot, '40/root/efi')]);
  });
});
