import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { filesystemHandlers } from '../../../../src/agent/handlers/filesystems.js';
import { storageHandlers } from '../../../../src/agent/handlers/storage.js';
import { context, madeUpGuest, type MadeUpGuest, type Tools } from '../../../support/guest-sources.js';

let guest: MadeUpGuest | undefined;

const vda = 'sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda';
const dm0 = 'sys/devices/virtual/block/dm-0';

/** A disk with two partitions, a volume on the second, an empty loop device. */
function make(tools: Tools = {}, compat?: '7.2'): MadeUpGuest {
  const made = (guest = madeUpGuest(tools, compat));
  const device = (path: string, number: string, size: string): void => {
    const name = path.slice(path.lastIndexOf('/') + 1);
    made.write(`${path}/uevent`, `MAJOR=1\nDEVNAME=${name}\nDEVTYPE=disk\n`);
    made.write(`${path}/dev`, `${number}\n`);
    made.write(`${path}/size`, `${size}\n`);
    made.link(`sys/class/block/${name}`, path);
    made.link(`sys/dev/block/${number}`, path);
  };
  made.link('sys/devices/pci0000:00/0000:00:05.0/driver', 'sys/bus/pci/drivers/virtio-pci');
  device(vda, '254:0', '2048');
  device(`${vda}/vda2`, '254:2', '1000');
  device(`${vda}/vda10`, '254:10', '1000');
  made.write(`${vda}/vda2/partition`, '2\n');
  made.write(`${vda}/vda10/partition`, '10\n');
  made.write(`${vda}/serial`, 'root-disk\n');
  mkdirSync(join(made.root, vda, 'slaves'));
  device(dm0, '253:0', '900');
  made.write(`${dm0}/dm/name`, 'vg-data\n');
  made.link(`${dm0}/slaves/vda2`, `${vda}/vda2`);
  device('sys/devices/virtual/block/loop0', '7:0', '0');
  made.link('sys/block/vda', vda);
  made.link('sys/block/dm-0', dm0);
  made.link('sys/block/loop0', 'sys/devices/virtual/block/loop0');
  made.write(
    'proc/self/mountinfo',
    [
      '21 1 254:10 / / rw - ext4 /dev/vda10 rw',
      `22 21 253:0 / ${made.root} rw - xfs /dev/mapper/vg-data rw`,
      '23 21 254:10 /srv /etc rw - ext4 /dev/vda10 rw',
      '24 21 0:5 / /proc rw - proc proc rw',
      '25 21 254:2 / /no-such-place rw - ext4 /dev/vda2 rw',
      '',
    ].join('\n'),
  );
  return made;
}

test('lists disks with their address, partitions and volumes with what they lie on', async () => {
  expect(await storageHandlers(make().sources)['guest-get-disks']({}, context)).toEqual([
    { name: '/dev/dm-0', partition: false, dependencies: ['/dev/vda2'], alias: 'vg-data' },
    {
      name: '/dev/vda',
      partition: false,
      dependencies: [],
      address: {
        'pci-controller': { domain: 0, bus: 0, slot: 5, function: 0 },
        'bus-type': 'virtio',
        bus: 0,
        target: 0,
        unit: 0,
        serial: 'root-disk',
        dev: '/dev/vda',
      },
    },
    { name: '/dev/vda2', partition: true, dependencies: ['/dev/vda'] },
    { name: '/dev/vda10', partition: true, dependencies: ['/dev/vda'] },
  ]);
});

test('guest-get-fsinfo names the partition under a volume', async () => {
  const { sources } = make();
  const found = await filesystemHandlers(sources)['guest-get-fsinfo']({}, context);
  expect(found.map(({ name, disk }) => [name, disk.map(({ dev }) => dev)])).toEqual([
    ['vda2', ['/dev/vda2']],
    ['dm-0', ['/dev/vda2']],
    ['vda10', ['/dev/vda10']],
  ]);
});

test('asks the one view of the machine, and only for what is mounted in this namespace', async () => {
  const { sources } = make();
  const asked: (string | undefined)[] = [];
  const counted: typeof sources = {
    ...sources,
    async view(extent) {
      asked.push(extent);
      return await sources.view(extent);
    },
  };
  await filesystemHandlers(counted)['guest-get-fsinfo']({}, context);
  await storageHandlers(counted)['guest-fstrim']({}, context);
  expect(asked).toEqual(['own', 'own']);
});

test('trims a filesystem whose mount point is not UTF-8 by the folder that is open', async () => {
  const { sources, root, calls } = make();
  const folder = Buffer.concat([Buffer.from(`${root}/caf`), Buffer.of(0xe9)]);
  mkdirSync(folder);
  const line = Buffer.concat([Buffer.from('20 1 254:10 / / rw - ext4 /dev/vda10 rw\n21 20 254:2 / '), folder]);
  writeFileSync(join(root, 'proc/self/mountinfo'), Buffer.concat([line, Buffer.from(' rw - ext4 /dev/vda2 rw\n')]));
  const { paths } = await storageHandlers(sources)['guest-fstrim']({}, context);
  expect(paths[0]?.path).toBe(`${root}/caf\udce9`);
  expect(calls[1]?.words.at(-1)).toMatch(new RegExp(`^/proc/${process.pid}/fd/\\d+$`));
  const found = await filesystemHandlers(sources)['guest-get-fsinfo']({}, context);
  expect(found[0]?.['total-bytes']).toBeGreaterThan(0);
});

test('trims every filesystem, and says of each how it went', async () => {
  const trim = (path: string): string => `fstrim --verbose --minimum 4096 ${path}`;
  const tools: Record<string, Tools[string]> = {
    [trim('/')]: { stdout: '/: 1.5 GiB (1610612736 bytes) trimmed\n' },
  };
  const made = make(tools);
  const handlers = storageHandlers(made.sources);
  tools[trim(made.root)] = { exitCode: 1, output: `fstrim: ${made.root}: the discard operation is not supported\n` };
  expect(await handlers['guest-fstrim']({ minimum: 4096 }, context)).toEqual({
    paths: [
      { path: '/no-such-place', error: 'failed to open: No such file or directory' },
      { path: made.root, error: 'trim not supported' },
      { path: '/', trimmed: 1610612736n },
    ],
  });
  tools[trim(made.root)] = { exitCode: 1, output: `fstrim: ${made.root}: FITRIM ioctl failed: Input/output error\n` };
  const again = await handlers['guest-fstrim']({ minimum: 4096 }, context);
  expect(again.paths[1]?.error).toBe('failed to trim: Input/output error');
  await expect(handlers['guest-fstrim']({ minimum: -1 }, context)).rejects.toThrow('invalid for argument minimum');
});

test('trims each mount, and says which tool is missing', async () => {
  const { paths } = await storageHandlers(make({}, '7.2').sources)['guest-fstrim']({}, context);
  expect(paths.map(({ path }) => path)).toEqual(['/no-such-place', '/etc', guest?.root, '/']);
  expect(paths[1]?.error).toBe(`failed to trim: the helper program 'fstrim' (package util-linux) was not found`);
});
