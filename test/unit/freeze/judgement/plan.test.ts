// Disks behind filesystems, and the order and choice that follow from them, over made-up machines.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defined } from '../../../../src/defined.js';
import type { FreezeRequest } from '../../../../src/consistency.js';
import { createDiskLookup, type DiskChain } from '../../../../src/linux/disks.js';
import type { MountTable } from '../../../../src/linux/mounts.js';
import {
  concernedWriters,
  cutsApart,
  makePlan,
  uncoveredOf,
  type FreezePlan,
} from '../../../../src/freeze/judgement/plan.js';
import { noRules, type FreezeRules } from '../../../../src/freeze/judgement/rules.js';
import type { Writer } from '../../../../src/freeze/writers/folders.js';
import { FakeMachine } from '../../../support/fake-machine.js';
import { tableOf } from '../../../support/mount-table.js';

let dir: string;
let machine: FakeMachine;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-plan-'));
  machine = new FakeMachine(dir);
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

const readMounts = (path: string): MountTable => tableOf(readFileSync(path));
const plan = (
  request: Pick<FreezeRequest, 'mountpoints' | 'disks' | 'leave'> = {},
  rules: Partial<FreezeRules> = {},
): FreezePlan => {
  const table = readMounts(machine.mountinfoPath);
  return makePlan(table, createDiskLookup(table, machine), request, { ...noRules, ...rules });
};
const groups = (made: FreezePlan): Record<string, number> =>
  Object.fromEntries(
    made.filesystems.filter(({ action }) => action === 'freeze').map((one) => [one.filesystem.mountpoint, one.group]),
  );
const chain = (mountpoint: string): DiskChain => {
  const found = plan().filesystems.find(({ filesystem }) => filesystem.mountpoint === mountpoint);
  if (found === undefined) throw new Error(`no filesystem at ${mountpoint}`);
  return found.chain;
};

/** A device-mapper device over others. */
function mapper(name: string, ...slaves: string[]): string {
  const path = `devices/virtual/block/${name}`;
  const device = machine.block(path, { major: 253 });
  for (const slave of slaves) machine.link(`${path}/slaves/${slave.split('/').at(-1) ?? ''}`, slave);
  return device;
}

function loop(name: string, file: string): string {
  const path = `devices/virtual/block/${name}`;
  const device = machine.block(path, { major: 7 });
  machine.file(`${path}/loop/backing_file`, `${file}\n`);
  return device;
}

describe('disks', () => {
  test('a partition of a virtio disk', () => {
    const { path } = machine.virtioDisk('vda', 4, 'SERIAL');
    const device = machine.block(`${path}/vda1`, { partition: true });
    machine.mount({ device, mountpoint: '/', source: '/dev/vda1' });
    expect(chain('/')).toMatchObject({ devices: ['vda1'], direct: true, understood: true });
    expect(chain('/').disks).toMatchObject([
      {
        name: 'vda',
        dev: '/dev/vda',
        serial: 'SERIAL',
        pciAddress: '0000:00:04.0',
        address: { busType: 'virtio', pci: { domain: 0, bus: 0, slot: 4, function: 0 } },
      },
    ]);
  });

  test('virtio-scsi behind a bridge, with the serial of its product data page', () => {
    const bridge = 'devices/pci0000:00/0000:00:1e.0/0000:01:02.0';
    const path = `${bridge}/virtio5/host2/target2:0:0/2:0:0:3/block/sdb`;
    const device = machine.block(path, { major: 8 });
    machine.link(`${bridge}/driver`, 'bus/pci/drivers/virtio-pci');
    machine.link('devices/pci0000:00/0000:00:1e.0/driver', 'bus/pci/drivers/pcieport');
    machine.file('devices/unused', '');
    machine.link(`${path}/device`, `${bridge}/virtio5/host2/target2:0:0/2:0:0:3`);
    machine.file(`${bridge}/virtio5/host2/target2:0:0/2:0:0:3/vpd_pg80`, Buffer.from('\0\x80\0\x04ABCD', 'latin1'));
    machine.mount({ device, mountpoint: '/' });
    expect(chain('/').disks).toMatchObject([
      { serial: 'ABCD', pciAddress: '0000:01:02.0', address: { busType: 'scsi', bus: 0, target: 0, unit: 3 } },
    ]);
  });

  test("AHCI and IDE: unit and bus by the place of the host among the controller's", () => {
    const ahci = 'devices/pci0000:00/0000:00:1f.2';
    machine.link(`${ahci}/driver`, 'bus/pci/drivers/ahci');
    for (const n of [1, 2, 10]) machine.file(`${ahci}/ata${n}/x`, '');
    const sata = machine.block(`${ahci}/ata10/host9/target9:0:0/9:0:0:0/block/sda`, { major: 8 });
    machine.mount({ device: sata, mountpoint: '/' });
    const piix = 'devices/pci0000:00/0000:00:01.1';
    machine.link(`${piix}/driver`, 'bus/pci/drivers/ata_piix');
    for (const n of [3, 4]) machine.file(`${piix}/ata${n}/x`, '');
    const ide = machine.block(`${piix}/ata4/host3/target3:0:1/3:0:1:0/block/sdc`, { major: 8 });
    machine.mount({ device: ide, mountpoint: '/ide' });
    expect(chain('/').disks[0]?.address).toMatchObject({ busType: 'sata', unit: 2 });
    expect(chain('/ide').disks[0]?.address).toMatchObject({ busType: 'ide', bus: 1, unit: 1 });
  });

  test('NVMe, with its serial on the controller; over a fabric it is no disk of this machine', () => {
    const nvme = 'devices/pci0000:00/0000:00:05.0/nvme/nvme0';
    machine.link('devices/pci0000:00/0000:00:05.0/driver', 'bus/pci/drivers/nvme');
    machine.file(`${nvme}/serial`, 'NVME-1            \n');
    const device = machine.block(`${nvme}/nvme0n1`, { major: 259 });
    machine.link(`${nvme}/nvme0n1/device`, nvme);
    machine.mount({ device, mountpoint: '/' });
    const subsystem = 'devices/virtual/nvme-subsystem/nvme-subsys1';
    const fabric = machine.block(`${subsystem}/nvme1n1`, { major: 259 });
    machine.file(`${subsystem}/nvme1/transport`, 'tcp\n');
    machine.mount({ device: fabric, mountpoint: '/fabric' });
    expect(chain('/').disks).toMatchObject([{ serial: 'NVME-1', address: { busType: 'nvme' } }]);
    expect(chain('/fabric')).toMatchObject({ disks: [], direct: false, understood: true });
  });

  test('a logical volume over two disks is direct, one over a loop file is not', () => {
    const a = machine.virtioDisk('vda', 2);
    const b = machine.virtioDisk('vdb', 3);
    machine.mount({ device: a.device, mountpoint: '/' });
    machine.mount({ device: mapper('dm-0', a.path, b.path), mountpoint: '/lv' });
    loop('loop0', '/images/x.img');
    machine.mount({ device: mapper('dm-1', 'devices/virtual/block/loop0'), mountpoint: '/over-loop' });
    expect(chain('/lv')).toMatchObject({ direct: true, disks: [{ name: 'vda' }, { name: 'vdb' }] });
    expect(chain('/over-loop')).toMatchObject({ direct: false, disks: [{ name: 'vda' }], files: ['/images/x.img'] });
  });

  describe('an ext4 whose journal is on another device', () => {
    const journalOf = (thread?: string): void => {
      const disks = [2, 3, 4].map((slot) => machine.virtioDisk(`vd${slot}`, slot, `S${slot}`));
      for (const name of ['vd2-8', 'vd4']) machine.procFile(`fs/jbd2/${name}/info`, '');
      machine.mount({ device: disks[0]?.device ?? '', mountpoint: '/' });
      machine.mount({ device: disks[1]?.device ?? '', mountpoint: '/data' });
      if (thread === undefined) return;
      machine.file('fs/ext4/vd3/journal_task', thread === '<none>' ? '<none>\n' : '812\n');
      machine.procFile('812/comm', `${thread}\n`);
    };

    test('lies on both: on the disk of the journal alone, it is in the cut, and half of it missing', () => {
      journalOf('jbd2/vd4');
      expect(chain('/data')).toMatchObject({ devices: ['vd3', 'vd4'], direct: true, understood: true });
      expect(chain('/').devices).toEqual(['vd2']);
      const [data] = plan({ disks: [{ serial: 'S4' }] }).filesystems.filter(({ concerned }) => concerned);
      expect(data?.filesystem.mountpoint).toBe('/data');
      expect(data?.missingDisks.map(({ name }) => name)).toEqual(['vd3']);
    });

    test('before Linux 5.2, which does not name the thread, one journal belongs to one filesystem', () => {
      journalOf();
      expect(chain('/data').devices).toEqual(['vd3', 'vd4']);
      machine.mount({ device: machine.virtioDisk('vd5', 5).device, mountpoint: '/other' });
      expect([chain('/data'), chain('/other')]).toMatchObject([
        { understood: false, lacksJournal: true },
        { understood: false, lacksJournal: true },
      ]);
    });

    test('has none at all: nothing is guessed', () => {
      journalOf('<none>');
      expect(chain('/data')).toMatchObject({ devices: ['vd3'], understood: true });
    });
  });

  test('a guest on ZFS alone: it is never sent to FIFREEZE, and named as not held', () => {
    writeFileSync(
      machine.mountinfoPath,
      [
        '22 1 0:24 / / rw,relatime shared:1 - zfs rpool/ROOT/ubuntu rw,xattr,posixacl',
        '30 22 0:30 / /var/lib/mysql rw,relatime shared:4 - zfs rpool/mysql rw,xattr,posixacl',
        `33 22 ${machine.virtioDisk('vda', 2, 'A').device} / /boot/efi rw,relatime shared:7 - vfat /dev/vda1 rw,fmask=0022`,
        '',
      ].join('\n'),
    );
    const made = plan({ disks: [{ serial: 'A' }] });
    expect(groups(made)).toEqual({ '/boot/efi': 0 });
    const reason = 'zfs has no freeze: it is not held';
    expect(made.filesystems.filter(({ action }) => action === 'leave')).toMatchObject([
      { filesystem: { mountpoint: '/' }, concerned: true, reason },
      { filesystem: { mountpoint: '/var/lib/mysql' }, concerned: true, reason },
    ]);
    expect(made.skipped).toEqual(['/', '/var/lib/mysql'].map((what) => ({ what, reason })));
  });

  test('btrfs over two disks, by the devices its fsid lists', () => {
    const a = machine.virtioDisk('vda', 2);
    const b = machine.virtioDisk('vdb', 3);
    for (const { path } of [a, b]) machine.link(`fs/btrfs/FSID/devices/${path.slice(-3)}`, path);
    machine.mount({ device: '0:33', mountpoint: '/', type: 'btrfs', source: '/dev/vda' });
    expect(chain('/')).toMatchObject({ direct: true, disks: [{ name: 'vda' }, { name: 'vdb' }] });
  });

  test('ZFS, nbd, iSCSI and memory are told apart', () => {
    machine.mount({ device: '0:40', mountpoint: '/zfs', type: 'zfs', source: 'pool/x' });
    machine.mount({ device: machine.block('devices/virtual/block/nbd0', { major: 43 }), mountpoint: '/nbd' });
    machine.mount({ device: machine.block('devices/virtual/block/zram0', { major: 252 }), mountpoint: '/zram' });
    machine.mount({ device: machine.block('devices/virtual/block/new0', { major: 250 }), mountpoint: '/new' });
    machine.network();
    for (const [session, address] of [
      [1, '192.0.2.7'],
      [2, '127.0.0.1'],
      [3, undefined],
      [4, '10.42.0.7'],
    ] as const)
      machine.mount({ device: machine.iscsiDisk(`sd${session}`, session, address), mountpoint: `/iscsi${session}` });
    const loopback = 'devices/tcm_loop_0/tcm_loop_adapter_0/host9/target9:0:1/9:0:1:0/block/sdg';
    machine.mount({ device: machine.block(loopback, { major: 8 }), mountpoint: '/tcm' });
    const paths = ['/zfs', '/nbd', '/zram', '/new', '/iscsi1', '/iscsi2', '/iscsi3', '/iscsi4', '/tcm'];
    const seen = Object.fromEntries(paths.map((path) => [path, [chain(path).direct, chain(path).understood]]));
    expect(seen).toEqual({
      '/zfs': [false, false],
      '/nbd': [false, false],
      '/zram': [false, true],
      '/new': [false, false],
      '/iscsi1': [false, true],
      '/iscsi2': [false, false],
      '/iscsi3': [false, false],
      '/iscsi4': [false, false],
      '/tcm': [false, false],
    });
  });
});

describe('order', () => {
  test('disks side by side and last; loop files first, inner before outer, then the newest', () => {
    const a = machine.virtioDisk('vda', 2);
    const b = machine.virtioDisk('vdb', 3);
    machine.mount({ device: a.device, mountpoint: '/' });
    machine.mount({ device: loop('loop1', '/outer/inner.img'), mountpoint: '/inner' });
    machine.mount({ device: b.device, mountpoint: '/data' });
    machine.mount({ device: loop('loop0', '/data/outer.img'), mountpoint: '/outer' });
    machine.mount({ device: loop('loop2', '/lone.img'), mountpoint: '/lone' });
    expect(groups(plan())).toEqual({ '/lone': 0, '/inner': 1, '/outer': 2, '/data': 3, '/': 3 });
    expect(plan().filesystems.map(({ filesystem }) => filesystem.mountpoint)).toEqual([
      '/lone',
      '/inner',
      '/outer',
      '/data',
      '/',
    ]);
  });

  test('images in images in images, with device-mapper between', () => {
    const a = machine.virtioDisk('vda', 2);
    machine.mount({ device: a.device, mountpoint: '/' });
    // In the table in an order that says nothing: the outermost last.
    machine.mount({ device: loop('loop2', '/l1/l2/c.img'), mountpoint: '/l3' });
    loop('loop1', '/l1/b.img');
    const inner = mapper('dm-3', 'devices/virtual/block/loop1');
    const outer = machine.mount({ device: inner, mountpoint: '/beside' }) + 2;
    machine.mount({ device: mapper('dm-4', 'devices/virtual/block/dm-3'), mountpoint: '/l1/l2', parent: outer });
    expect(machine.mount({ device: loop('loop0', '/a.img'), mountpoint: '/l1' })).toBe(outer);
    const made = plan();
    const order = made.filesystems.map(({ filesystem }) => filesystem.mountpoint);
    const before = (inner: string, outer: string): boolean => order.indexOf(inner) < order.indexOf(outer);
    expect([before('/l3', '/l1/l2'), before('/l1/l2', '/l1'), before('/beside', '/l1'), before('/l1', '/')]).toEqual([
      true,
      true,
      true,
      true,
    ]);
    expect(new Set(Object.values(groups(made))).size).toBe(5);
    expect(chain('/l3').disks.map(({ name }) => name)).toEqual(['vda']);
  });

  test('a file on an overlay lies on its layers, and on the disks of the upper one', () => {
    const a = machine.virtioDisk('vda', 2);
    const b = machine.virtioDisk('vdb', 3);
    machine.mount({ device: a.device, mountpoint: '/' });
    machine.mount({ device: b.device, mountpoint: '/up\\054per' });
    machine.mount({ device: loop('loop0', '/layer.img'), mountpoint: '/low' });
    machine.mount({
      device: '0:70',
      mountpoint: '/merged',
      type: 'overlay',
      source: 'overlay',
      superOptions: 'rw,lowerdir=/low/x:/low/y\\\\:z,upperdir=/up\\054per/u,workdir=/up\\054per/w',
    });
    machine.mount({ device: loop('loop1', '/merged/in.img'), mountpoint: '/in' });
    expect(chain('/in')).toMatchObject({ understood: true, direct: false, disks: [{ name: 'vdb' }] });
    expect(
      chain('/in')
        .restsOn.map(({ mountpoint }) => mountpoint)
        .sort(),
    ).toEqual(['/low', '/up,per']);
    expect(groups(plan())).toEqual({ '/in': 0, '/low': 1, '/up,per': 2, '/': 2 });
  });

  test('a read-only overlay, one without layers that can be named, and a file on none of our disks', () => {
    const a = machine.virtioDisk('vda', 2);
    machine.mount({ device: a.device, mountpoint: '/' });
    const overlay = (device: string, mountpoint: string, superOptions: string): void => {
      machine.mount({ device, mountpoint, type: 'overlay', source: 'overlay', superOptions });
    };
    overlay('0:70', '/ro', 'ro,lowerdir+=/x,lowerdir+=/y');
    overlay('0:71', '/what', 'rw');
    overlay('0:72', '/relative', 'rw,lowerdir=x,upperdir=y');
    machine.mount({ device: '0:80', mountpoint: '/tmp', type: 'tmpfs', source: 'tmpfs' });
    machine.mount({ device: '0:81', mountpoint: '/nfs', type: 'nfs4', source: 'server:/' });
    const seen = ['/ro', '/what', '/relative', '/tmp', '/nfs'].map((folder, index) => {
      machine.mount({ device: loop(`loop${index}`, `${folder}/f.img`), mountpoint: `/m${index}` });
      const { understood, disks, restsOn } = chain(`/m${index}`);
      return [folder, understood, disks.length, restsOn.length];
    });
    expect(seen).toEqual([
      ['/ro', true, 1, 1],
      ['/what', false, 0, 0],
      ['/relative', false, 0, 0],
      ['/tmp', true, 0, 0],
      ['/nfs', false, 0, 0],
    ]);
  });

  test('a loop device over a partition, or over another loop device, follows it', () => {
    const a = machine.virtioDisk('vda', 2);
    machine.block(`${a.path}/vda1`, { partition: true });
    machine.mount({ device: a.device, mountpoint: '/' });
    machine.mount({ device: '0:6', mountpoint: '/dev', type: 'devtmpfs', source: 'udev' });
    machine.mount({ device: loop('loop0', '/dev/vda1'), mountpoint: '/part' });
    loop('loop1', '/x.img');
    machine.mount({ device: loop('loop2', '/dev/loop1'), mountpoint: '/twice' });
    machine.mount({ device: loop('loop3', '/dev/gone'), mountpoint: '/gone' });
    expect(chain('/part')).toMatchObject({ understood: true, direct: false, disks: [{ name: 'vda' }], restsOn: [] });
    expect(chain('/twice')).toMatchObject({ understood: true, files: ['/dev/loop1', '/x.img'] });
    expect(chain('/twice').restsOn.map(({ mountpoint }) => mountpoint)).toEqual(['/']);
    expect(chain('/gone')).toMatchObject({ understood: false });
  });

  test('a file whose folder was mounted over may lie on either: before both, and on any disk', () => {
    const a = machine.virtioDisk('vda', 2);
    const b = machine.virtioDisk('vdb', 3, 'B');
    machine.mount({ device: a.device, mountpoint: '/' });
    const under = machine.mount({ device: loop('loop0', '/old.img'), mountpoint: '/srv' });
    machine.mount({ device: loop('loop1', '/srv/x.img (deleted)'), mountpoint: '/x' });
    machine.mount({ device: b.device, mountpoint: '/srv', parent: under });
    machine.mount({ device: machine.number('loop0'), mountpoint: '/also' });
    expect(chain('/x')).toMatchObject({ understood: false });
    expect(chain('/x').restsOn.map(({ source, mountpoint }) => [source, mountpoint])).toEqual([
      ['/dev/x', '/also'],
      ['/dev/x', '/srv'],
    ]);
    expect(groups(plan())).toEqual({ '/x': 0, '/also': 1, '/srv': 2, '/': 2 });
    expect(groups(plan({ disks: [{ serial: 'B' }] }))).toEqual({ '/x': 0, '/srv': 1 });
  });

  test('btrfs over an image and a disk waits for what the image lies on', () => {
    const a = machine.virtioDisk('vda', 2);
    const b = machine.virtioDisk('vdb', 3);
    machine.mount({ device: a.device, mountpoint: '/' });
    loop('loop0', '/part.img');
    machine.link('fs/btrfs/FSID/devices/loop0', 'devices/virtual/block/loop0');
    machine.link('fs/btrfs/FSID/devices/vdb', b.path);
    machine.mount({ device: '0:33', mountpoint: '/pool', type: 'btrfs', source: '/dev/vdb', root: '/@' });
    machine.mount({ device: '0:34', mountpoint: '/home', type: 'btrfs', source: '/dev/vdb', root: '/@home' });
    expect(chain('/pool')).toMatchObject({ direct: false, devices: ['loop0', 'vdb'] });
    expect(
      chain('/pool')
        .disks.map(({ name }) => name)
        .sort(),
    ).toEqual(['vda', 'vdb']);
    expect(groups(plan())).toEqual({ '/pool': 0, '/': 1 });
  });

  test('nbd, zvols and the like come before what their server may lie on, the newest first', () => {
    const a = machine.virtioDisk('vda', 2, 'A');
    machine.mount({ device: a.device, mountpoint: '/' });
    machine.mount({ device: loop('loop0', '/x.img'), mountpoint: '/images' });
    machine.mount({ device: machine.block('devices/virtual/block/nbd0', { major: 43 }), mountpoint: '/nbd' });
    machine.mount({ device: machine.block('devices/virtual/block/zd0', { major: 230 }), mountpoint: '/zvol' });
    expect(groups(plan())).toEqual({ '/zvol': 0, '/nbd': 1, '/images': 2, '/': 3 });
    expect(Object.keys(groups(plan({ disks: [{ serial: 'A' }] })))).toHaveLength(4);
  });

  test('a loop device over a file on itself does not end in a circle', () => {
    machine.mount({ device: loop('loop0', '/x.img'), mountpoint: '/' });
    expect(chain('/')).toMatchObject({ understood: false, direct: false });
    expect(groups(plan())).toEqual({ '/': 0 });
  });
});

describe('what cannot be opened', () => {
  test('hidden under another mount: left, concerned, named with what hides it', () => {
    const [a, b, c] = [machine.virtioDisk('vda', 2), machine.virtioDisk('vdb', 3), machine.virtioDisk('vdc', 4)];
    machine.mount({ device: a.device, mountpoint: '/' });
    const under = machine.mount({ device: b.device, mountpoint: '/mnt' });
    machine.mount({ device: c.device, mountpoint: '/mnt', type: 'xfs', parent: under });
    const made = plan();
    const reason = 'hidden under the xfs mounted at /mnt, cannot be opened';
    expect(made.filesystems.find((one) => one.action === 'leave')).toMatchObject({ concerned: true, reason });
    expect(made.skipped).toEqual([{ what: '/mnt', reason }]);
  });

  test('beneath a network or FUSE mount: never looked up; beneath an automount: opened', () => {
    const [a, b, c, d] = [2, 3, 4, 5].map((slot) => machine.virtioDisk(`vd${slot}`, slot).device);
    machine.mount({ device: a ?? '', mountpoint: '/' });
    const nfs = machine.mount({ device: '0:50', mountpoint: '/nfs', type: 'nfs4', source: 'server:/' });
    machine.mount({ device: b ?? '', mountpoint: '/nfs/disk', parent: nfs });
    machine.mount({ device: c ?? '', mountpoint: '/nfs/other', parent: nfs });
    machine.mount({ device: c ?? '', mountpoint: '/other' });
    const auto = machine.mount({ device: '0:51', mountpoint: '/efi', type: 'autofs', source: 'systemd-1' });
    machine.mount({ device: d ?? '', mountpoint: '/efi', parent: auto });
    const made = plan();
    const reason = 'its path leads through nfs4 at /nfs, which may not answer';
    expect(
      made.filesystems.filter((one) => one.action === 'freeze').map(({ mounts }) => mounts[0]?.mountpoint),
    ).toEqual(expect.arrayContaining(['/', '/other', '/efi']));
    expect(made.filesystems.filter((one) => one.action === 'leave')).toMatchObject([{ concerned: true, reason }]);
    expect(made.skipped).toContainEqual({ what: '/nfs/disk', reason });
  });
});

describe('concern', () => {
  beforeEach(() => {
    const a = machine.virtioDisk('vda', 2, 'A');
    const b = machine.virtioDisk('vdb', 3, 'B-long-serial-number');
    machine.mount({ device: a.device, mountpoint: '/' });
    machine.mount({ device: b.device, mountpoint: '/data' });
    machine.mount({ device: loop('loop0', '/data/x.img'), mountpoint: '/in-data' });
    const ro = machine.virtioDisk('vdc', 4, 'C');
    machine.mount({ device: ro.device, mountpoint: '/ro', options: 'ro' });
  });
  const concerned = (made: FreezePlan): string[] =>
    made.filesystems.filter((one) => one.concerned).map((one) => one.filesystem.mountpoint);

  test('without disks: all that are read-write', () => {
    expect(concerned(plan())).toEqual(['/in-data', '/data', '/']);
  });

  test.each([
    ['serial', { serial: 'A' }, ['/']],
    [
      'a serial that virtio-blk cut at 20 bytes, with what lies in files on it',
      { serial: 'B-long-serial-number-and-more' },
      ['/in-data', '/data'],
    ],
    ['PCI address in capitals', { pciAddress: '0000:00:02.0' }, ['/']],
    ['PCI address where the serial is unknown', { serial: 'other', pciAddress: '0000:00:03.0' }, ['/in-data', '/data']],
    ['serial before PCI address', { serial: 'A', pciAddress: '0000:00:03.0' }, ['/']],
    ['a disk that is not here', { serial: 'nobody' }, []],
    ['a disk named by nothing', { serial: '' }, []],
    ['read-only only', { serial: 'C' }, []],
  ])('%s', (_name, disk, expected) => {
    expect(concerned(plan({ disks: [disk] }))).toEqual(expected);
  });

  test('what is not understood may lie on any disk', () => {
    machine.mount({ device: '0:40', mountpoint: '/zfs', type: 'zfs', source: 'pool/x' });
    expect(concerned(plan({ disks: [{ serial: 'A' }] }))).toEqual(['/', '/zfs']);
  });

  test('mount points limit what freezes; with disks the cut still says what is concerned', () => {
    expect(groups(plan({ mountpoints: ['/'] }))).toEqual({ '/': 0 });
    const both = plan({ mountpoints: ['/'], disks: [{ serial: 'B-long-serial-number' }] });
    expect(groups(both)).toEqual({});
    expect(concerned(both)).toEqual(['/data', '/in-data']);
    expect(plan({ mountpoints: ['/', '/nowhere'] }).unknownMountpoints).toEqual(['/nowhere']);
  });

  test('what is left to a provider is concerned, and does not freeze, whatever the rules say', () => {
    const made = plan({ leave: ['/data', '/in-data'] }, { excludeTypes: ['ext4'], excludeMountpoints: ['/data'] });
    expect(groups(made)).toEqual({});
    expect(concerned(made)).toEqual(expect.arrayContaining(['/in-data', '/data', '/']));
    const actions = made.filesystems.map(({ filesystem, action }) => [filesystem.mountpoint, action]);
    expect(Object.fromEntries(actions)).toMatchObject({ '/data': 'provider', '/in-data': 'provider', '/': 'leave' });
    expect(made).toMatchObject({ notLeft: [], leftOnFrozen: [] });
    expect(plan({ leave: ['/ro'] }).notLeft).toEqual([]);
    expect(plan({ leave: ['/', '/nowhere'], mountpoints: ['/data'] }).notLeft).toEqual(['/', '/nowhere']);
    expect(plan({ leave: ['/'], disks: [{ serial: 'B-long-serial-number' }] }).notLeft).toEqual(['/']);
  });

  test('what lies in a file on a filesystem that freezes cannot be left; the other way round it can', () => {
    expect(plan({ leave: ['/in-data'] }).leftOnFrozen).toEqual([{ what: '/in-data', under: '/data' }]);
    expect(plan({ leave: ['/in-data'], mountpoints: ['/in-data'] }).leftOnFrozen).toEqual([]);
    expect(plan({ leave: ['/data'] }).leftOnFrozen).toEqual([]);
  });

  test.each([
    [{ excludeMountpoints: ['/data'] }, ['/data'], 'exclude-mountpoints: /data'],
    [{ excludeMountpoints: ['/*data'] }, ['/in-data', '/data'], 'exclude-mountpoints: /*data'],
    [{ excludeTypes: ['ext4'] }, ['/in-data', '/data', '/'], 'exclude-types: ext4'],
    [{ includeMountpoints: ['/'] }, ['/in-data', '/data'], 'neither in include-mountpoints nor in include-types'],
    [{ includeTypes: ['xfs'] }, ['/in-data', '/data', '/'], 'neither in include-mountpoints nor in include-types'],
    [{ includeTypes: ['ext4'], excludeMountpoints: ['/'] }, ['/'], 'exclude-mountpoints: /'],
  ])('what %j takes out stays concerned, and is named', (rules, expected, why) => {
    const made = plan({}, rules);
    const left = made.filesystems.filter((one) => one.action === 'leave');
    const reason = `excluded by configuration (${why})`;
    expect(left.map((one) => one.filesystem.mountpoint).sort()).toEqual([...expected].sort());
    expect(left.every((one) => one.concerned && one.reason === reason)).toBe(true);
    expect(made.skipped).toEqual(expect.arrayContaining(expected.map((what) => ({ what, reason }))));
    expect(made.skipped).toHaveLength(expected.length);
  });

  test('a mount point that is not UTF-8 is asked for as whoever asks was told of it', () => {
    const mountinfo = readFileSync(machine.mountinfoPath);
    const line = Buffer.from(
      `99 31 ${machine.virtioDisk('vdd', 5).device} / /caf\xe9 rw - ext4 /dev/vdd rw\n`,
      'latin1',
    );
    writeFileSync(machine.mountinfoPath, Buffer.concat([mountinfo, line]));
    const made = plan({ mountpoints: ['/caf\ufffd'] });
    expect(made.unknownMountpoints).toEqual([]);
    expect(groups(made)).toEqual({ '/caf\udce9': 0 });
  });

  test('one mount point that is excluded takes out the whole filesystem: it has one freeze', () => {
    machine.mount({ device: '254:1', mountpoint: '/srv/app', root: '/app' });
    const made = plan({}, { excludeMountpoints: ['/srv/**'] });
    expect(Object.keys(groups(made))).not.toContain('/data');
    expect(made.skipped.map(({ what }) => what)).toEqual(['/data']);
  });

  const writer = (name: string, covers: string[], problem?: string): Writer => ({
    name,
    path: `/w/${name}`,
    folder: { path: '/w', style: 'bridge' },
    kind: 'described',
    required: true,
    rank: 50,
    phases: ['prepare'],
    description: { phases: ['prepare'], rank: 50, timeout: {}, required: true, covers },
    ...defined({ problem }),
  });

  test('what a writer covers and the cut leaves out is told, if it is there', () => {
    const there = join(dir, 'log');
    mkdirSync(there);
    machine.mount({ device: '254:1', mountpoint: there, root: '/log' });
    machine.mount({ device: '0:90', mountpoint: '/net', source: 'server:/x', type: 'nfs4' });
    const table = readMounts(machine.mountinfoPath);
    const made = makePlan(table, createDiskLookup(table, machine), { disks: [{ serial: 'A' }] });
    const writers = [writer('all', ['/', '/nope']), writer('half', ['/', there, '/data/nope', '/net/x', '/proc/1'])];
    expect(uncoveredOf(writers, table, made)).toEqual([{ writer: '/w/half', paths: [there, '/net/x'] }]);
  });

  test('is apart where a provider cuts one of several: each has an instant of its own', () => {
    const apart = (...leave: string[]): boolean => cutsApart(plan({ mountpoints: ['/', '/data'], leave }));
    expect([apart(), apart('/data'), apart('/', '/data')]).toEqual([false, true, true]);
    expect(cutsApart(plan({ mountpoints: ['/data'], leave: ['/data'] }))).toBe(false);
  });

  test('writers take part by what they cover', () => {
    const writers = [
      writer('all', []),
      writer('data', ['/data/db']),
      writer('root', ['/nope/x']),
      writer('bad', [], 'x'),
    ];
    const table = readMounts(machine.mountinfoPath);
    const made = makePlan(table, createDiskLookup(table, machine), { disks: [{ serial: 'A' }] });
    const { concerned: some, skipped } = concernedWriters(writers, table, made);
    expect(some.map(({ name }) => name)).toEqual(['all', 'root']);
    expect(skipped).toEqual([
      { what: '/w/bad', reason: 'x' },
      { what: '/w/data', reason: 'what it covers is no part of the cut' },
    ]);
  });
});
