// The command line of a guest that is booted to be tested.
import { expect, test } from 'vitest';
import { guestArguments, type GuestDisk, type GuestSetup } from '../../../../src/host/boot/guest-arguments.js';
import type { MachineFacts } from '../../../../src/host/vm/machine-facts.js';
import { runDisk, runNumbered } from '../../../support/runs.js';

const facts: MachineFacts = {
  ...{ format: 1, arch: 'x86_64', machine: 'pc-q35-7.2', cpu: 'host', cpus: 2, memoryBytes: 2 ** 30 },
  ...{ firmware: 'bios-256k.bin', flash: [] },
  disks: [
    { id: 'root', model: 'virtio-blk-device', controller: 'virtio-blk-pci' },
    { id: 'data', model: 'scsi-hd', controller: 'virtio-scsi-pci' },
    { id: 'more', model: 'scsi-hd', controller: 'virtio-scsi-pci' },
  ],
  agentPort: 'org.qemu.guest_agent.7',
};
const disk = (id: string, pciAddress?: string): GuestDisk => ({
  ...{ id, serial: id, pciAddress, overlay: `/scratch/${id}` },
  links: [2, 1].map((number) => ({
    run: runNumbered(number),
    disk: runDisk(id),
    file: `/repo/${number}/${id}.qcow2`,
    encryption: undefined,
  })),
});
const setup = (over: Partial<GuestSetup> = {}): GuestSetup => ({
  ...{ facts, accelerator: 'tcg', uuid: undefined, disks: [disk('root')], diskBus: undefined, flash: [] },
  ...{ paths: { qmp: '/scratch/qmp', agent: '/scratch/a,b', console: '/scratch/console' }, qemuArgs: [] },
  ...over,
});
/** What follows the option, each time. */
const given = (words: readonly string[], option: string): string[] => {
  return words.flatMap((word, index) => (word === option ? [words[index + 1] ?? ''] : []));
};
const devices = (over: Partial<GuestSetup>): object[] => {
  const words = given(guestArguments(setup(over)), '-device').filter((word) => word.startsWith('{'));
  return words.map((word) => JSON.parse(word) as object);
};

test('has the machine that is recorded, and no network', () => {
  const words = guestArguments(setup({ uuid: 'u-1', qemuArgs: ['-m', '64M'] }));
  expect(given(words, '-machine')).toEqual(['pc-q35-7.2']);
  expect(given(words, '-smp')).toEqual(['2']);
  expect(given(words, '-uuid')).toEqual(['u-1']);
  // The last one counts: its user's.
  expect(given(words, '-m')).toEqual(['1024M', '64M']);
  expect(given(words, '-nic')).toEqual(['none']);
  expect(words).toContain('-S');
  expect(given(words, '-sandbox').join()).toMatch(/^on,.*spawn=deny/);
  expect(words).toContain('-nodefaults');
  expect(words).not.toContain('-netdev');
  expect(given(words, '-bios')).toEqual(['bios-256k.bin']);
  expect(given(words, '-chardev')).toContain('socket,id=agent,path=/scratch/a,,b,server=on,wait=off');
  expect(given(words, '-device')).toContain('virtserialport,chardev=agent,name=org.qemu.guest_agent.7');
});

test('writes to its own image alone: what is below is only read, and is what the records say', () => {
  const [node = ''] = given(guestArguments(setup()), '-blockdev');
  const readOnly = { driver: 'qcow2', 'read-only': true };
  const file = (name: string): object => ({ driver: 'file', filename: name, 'read-only': true });
  expect(JSON.parse(node)).toMatchObject({
    file: { driver: 'file', filename: '/scratch/root' },
    backing: {
      ...{ ...readOnly, file: file('/repo/2/root.qcow2') },
      backing: { ...readOnly, file: file('/repo/1/root.qcow2'), backing: null },
    },
  });
});

test('one that stays restarts, is told to flush, and has a monitor for its user', () => {
  const paths = { ...setup().paths, userQmp: '/vm/qmp.sock' };
  const words = guestArguments(setup({ stays: 'db,1', paths }));
  expect(given(words, '-name')).toEqual(['guest=db,,1']);
  expect(words).not.toContain('-no-reboot');
  expect(words).not.toContain('-nic');
  expect(given(words, '-qmp').map((word) => word.split(',')[0])).toEqual(['unix:/scratch/qmp', 'unix:/vm/qmp.sock']);
  expect(JSON.parse(given(words, '-blockdev')[0] ?? '')).toMatchObject({ cache: { direct: false, 'no-flush': false } });
  expect(given(words, '-sandbox')).toHaveLength(1);
  const free = ['-sandbox', 'off'];
  expect(given(guestArguments(setup({ stays: 'db1', paths, qemuArgs: free })), '-sandbox')).toEqual(['off']);
});

test('opens what is encrypted by a key that it is given apart', () => {
  const root = disk('root');
  const encryption = { format: 'luks', cipher: 'aes-256-xts-plain64' } as const;
  const words = guestArguments(
    setup({ disks: [{ ...root, links: root.links.map((link) => ({ ...link, encryption })) }] }),
  );
  expect(given(words, '-object')).toEqual(['secret,id=key,file=/proc/self/fd/0']);
  expect(words.indexOf('-object')).toBeLessThan(words.indexOf('-blockdev'));
  const inLuks = (filename: string): object => ({
    ...{ driver: 'luks', 'key-secret': 'key', 'read-only': true },
    file: { driver: 'file', filename, 'read-only': true },
  });
  expect(JSON.parse(given(words, '-blockdev')[0] ?? '')).toMatchObject({
    backing: { file: inLuks('/repo/2/root.qcow2'), backing: { file: inLuks('/repo/1/root.qcow2'), backing: null } },
  });
  expect(guestArguments(setup())).not.toContain('-object');
});

test('has a processor that can be emulated where it is', () => {
  expect(given(guestArguments(setup()), '-cpu')).toEqual(['max']);
  expect(given(guestArguments(setup({ accelerator: 'kvm' })), '-cpu')).toEqual(['host']);
  expect(given(guestArguments(setup({ facts: { ...facts, cpu: 'Skylake-Server' } })), '-cpu')).toEqual([
    'Skylake-Server',
  ]);
});

test('has its disks in the order of their places, on what they hung on', () => {
  const disks = [disk('data', '0000:00:05.0'), disk('more', '0000:00:05.0'), disk('root', '0000:00:04.0')];
  expect(devices({ disks })).toMatchObject([
    { driver: 'virtio-blk-pci', serial: 'root' },
    { driver: 'scsi-hd', serial: 'data', bus: 'controller0.0' },
    { driver: 'scsi-hd', serial: 'more', bus: 'controller0.0' },
  ]);
  const words = given(guestArguments(setup({ disks })), '-device');
  expect(words.filter((word) => word.startsWith('virtio-scsi-pci'))).toEqual(['virtio-scsi-pci,id=controller0']);
});

test.each([
  ['ide-hd', 'ide-hd'],
  ['nvme', 'nvme'],
  ['nvme-ns', 'nvme'],
  ['virtio-blk-pci', 'virtio-blk-pci'],
])('a disk that was a %s is a %s again', (model, driver) => {
  expect(devices({ facts: { ...facts, disks: [{ id: 'root', model }] } })).toMatchObject([{ driver }]);
});

test('a disk on a bus that is not known is refused, unless another one is asked for', () => {
  for (const unknown of [
    { model: 'sd-card' },
    { model: 'scsi-hd', controller: 'usb-storage' },
    { model: 'scsi-hd', controller: 'vfio-pci' },
  ]) {
    const odd = { ...facts, disks: [{ id: 'root', ...unknown }] };
    expect(() => devices({ facts: odd })).toThrow(/disk root was a .*: give --disk-bus/);
    expect(devices({ facts: odd, diskBus: 'sata' })).toMatchObject([{ driver: 'ide-hd' }]);
  }
});

test('is booted from the disk that it was booted from', () => {
  const ordered = {
    ...facts,
    disks: [{ id: 'root', model: 'virtio-blk-device', bootIndex: 2 }, ...facts.disks.slice(1)],
  };
  const found = devices({ facts: ordered, disks: [disk('root'), disk('data')] });
  expect(found).toMatchObject([{ serial: 'root', bootindex: 2 }, { serial: 'data' }]);
  expect(found[1]).not.toHaveProperty('bootindex');
});

test('has what lies in flash for its firmware', () => {
  const flash = [
    { file: '/usr/share/OVMF/CODE.fd', format: 'raw', readOnly: true },
    { file: '/scratch/flash1', format: 'raw', readOnly: false },
  ];
  const words = guestArguments(setup({ flash }));
  expect(given(words, '-drive')).toEqual([
    'if=pflash,unit=0,format=raw,file=/usr/share/OVMF/CODE.fd,readonly=on',
    'if=pflash,unit=1,format=raw,file=/scratch/flash1,readonly=off',
  ]);
  expect(words).not.toContain('-bios');
});

test('stands still where this host fails it, as far as its disk can', () => {
  const stop = { werror: 'stop', rerror: 'stop' };
  for (const diskBus of ['virtio', 'scsi', 'sata'] as const) expect(devices({ diskBus })).toMatchObject([stop]);
  // QEMU refuses these words for an nvme.
  expect(devices({ diskBus: 'nvme' })).not.toMatchObject([stop]);
});
