// guest-get-fsinfo over a made-up sysfs: what a host needs to match its disks.
import { mkdirSync, mkdtempSync, rmSync, statfsSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { filesystemHandlers } from '../../../../src/agent/handlers/filesystems.js';
import { machineViewer } from '../../../../src/linux/machine-view.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'fsb-sysfs-'));
});
afterEach(() => {
  rmSync(root, { recursive: true });
});

const write = (path: string, text: string): void => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
};
const link = (path: string, target: string): void => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  mkdirSync(join(root, target), { recursive: true });
  symlinkSync(relative(dirname(join(root, path)), join(root, target)), join(root, path));
};

const pci = 'sys/devices/pci0000:00';
const vda = `${pci}/0000:00:05.0/virtio2/block/vda`;
const sdb = `${pci}/0000:00:06.0/virtio3/host2/target2:0:0/2:0:0:3/block/sdb`;
const dm0 = 'sys/devices/virtual/block/dm-0';

/** A virtio-blk disk with one partition, and LVM over a virtio-scsi disk. */
function plant(): void {
  link(`${pci}/0000:00:05.0/driver`, 'sys/bus/pci/drivers/virtio-pci');
  link(`${pci}/0000:00:06.0/driver`, 'sys/bus/pci/drivers/virtio-pci');
  write(`${vda}/serial`, 'root-disk\n');
  write(`${vda}/dev`, '254:0\n');
  write(`${vda}/queue/iostats`, '1\n');
  write(`${vda}/vda1/partition`, '1\n');
  write(`${vda}/vda1/dev`, '254:1\n');
  write(`${sdb}/dev`, '8:16\n');
  write(`${sdb}/queue/iostats`, '1\n');
  write(`${dm0}/dm/name`, 'vg-data\n');
  write(`${dm0}/dev`, '253:0\n');
  link(`${dm0}/slaves/sdb`, sdb);
  link('sys/dev/block/254:0', vda);
  link('sys/dev/block/254:1', `${vda}/vda1`);
  link('sys/dev/block/8:16', sdb);
  link('sys/dev/block/253:0', dm0);
  for (const [name, path] of Object.entries({ vda, vda1: `${vda}/vda1`, sdb, 'dm-0': dm0 })) {
    link(`sys/class/block/${name}`, path);
  }
  for (const [name, path] of Object.entries({ vda, sdb, 'dm-0': dm0 })) link(`sys/block/${name}`, path);
  write('udev/data/b8:16', 'E:ID_SERIAL=0QEMU_QEMU_HARDDISK_data-disk\n');
  write(
    'mountinfo',
    [
      '21 1 254:1 / / rw - ext4 /dev/vda1 rw',
      '22 21 0:5 / /proc rw - proc proc rw',
      `23 21 253:0 / ${root} rw - xfs /dev/mapper/vg-data rw`,
      '24 21 254:1 /srv /srv rw - ext4 /dev/vda1 rw',
      '25 21 0:40 / /mnt/nfs rw - nfs4 server:/x rw',
      '',
    ].join('\n'),
  );
}

const fsinfo = async (compat: '10.2' | '7.2') =>
  await handlers(compat)['guest-get-fsinfo']({}, { origin: 'host', name: 'test' });

const handlers = (compat: '10.2' | '7.2') => {
  const sysRoot = join(root, 'sys');
  const view = machineViewer({ sysRoot, mountinfoPath: join(root, 'mountinfo'), udevRoot: join(root, 'udev') });
  return filesystemHandlers({ compat, sysRoot, view });
};

test('names each filesystem once, newest first, with the addresses of its disks', async () => {
  plant();
  const found = await fsinfo('10.2');
  expect(found.map(({ name, mountpoint, type }) => ({ name, mountpoint, type }))).toEqual([
    { name: 'dm-0', mountpoint: root, type: 'xfs' },
    { name: 'vda1', mountpoint: '/', type: 'ext4' },
  ]);
  expect(found.map(({ disk }) => disk)).toEqual([
    [
      {
        'pci-controller': { domain: 0, bus: 0, slot: 6, function: 0 },
        'bus-type': 'scsi',
        bus: 0,
        target: 0,
        unit: 3,
        serial: '0QEMU_QEMU_HARDDISK_data-disk',
        dev: '/dev/sdb',
      },
    ],
    [
      {
        'pci-controller': { domain: 0, bus: 0, slot: 5, function: 0 },
        'bus-type': 'virtio',
        bus: 0,
        target: 0,
        unit: 0,
        serial: 'root-disk',
        dev: '/dev/vda1',
      },
    ],
  ]);
});

test('counts bytes as df does for users, and for root apart', async () => {
  plant();
  const [data] = await fsinfo('10.2');
  const stat = statfsSync(root, { bigint: true });
  expect(data?.['total-bytes-privileged']).toBe(stat.blocks * stat.bsize);
  expect(Number(data?.['total-bytes'])).toBeLessThanOrEqual(Number(data?.['total-bytes-privileged']));
  expect(Number(data?.['used-bytes'])).toBeGreaterThan(0);
});

test('lists every mount, and no privileged total, as 7.2 does', async () => {
  plant();
  const found = await fsinfo('7.2');
  expect(found.map(({ mountpoint }) => mountpoint)).toEqual(['/srv', root, '/']);
  expect(found.every((entry) => !('total-bytes-privileged' in entry))).toBe(true);
});

test('leaves the sizes out where the mount point cannot be asked', async () => {
  write('mountinfo', '21 1 254:1 / /nonexistent-mount-point rw - ext4 /dev/vda1 rw\n');
  mkdirSync(join(root, 'sys'));
  const found = await fsinfo('10.2');
  expect(found).toEqual([{ name: '/dev/vda1', mountpoint: '/nonexistent-mount-point', type: 'ext4', disk: [] }]);
});
