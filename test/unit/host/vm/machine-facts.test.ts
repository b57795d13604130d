// What QEMU tells of a machine, by a scripted monitor.
import { expect, test } from 'vitest';
import { describeMachine, machineFactsSchema } from '../../../../src/host/vm/machine-facts.js';
import { QmpError } from '../../../../src/qmp/errors.js';
import type { Monitor } from '../../../../src/qmp/monitor.js';
import * as v from 'valibot';
import { vmDisk } from '../../../support/vm-disks.js';

const properties: Readonly<Record<string, unknown>> = {
  '/machine type': 'pc-i440fx-7.2-machine',
  '/machine firmware': 'bios-256k.bin',
  '/machine kernel': '/boot/vmlinuz',
  '/machine initrd': '',
  '/machine append': 'root=/dev/vda',
  '/machine/cpu type': 'Skylake-Server-x86_64-cpu',
  '/machine/peripheral/s0 parent_bus': '/machine/peripheral/c0/virtio-backend/c0.0',
  '/machine/peripheral/c0 type': 'virtio-scsi-pci',
  '/machine/peripheral/s0 bootindex': 1,
  '/machine/peripheral/v0 bootindex': -1,
};
const answers: Readonly<Record<string, unknown>> = {
  'query-cpus-fast': [{ 'qom-path': '/machine/cpu' }, { 'qom-path': '/machine/cpu' }],
  'query-target': { arch: 'x86_64' },
  'query-memory-size-summary': { 'base-memory': 2 ** 30, 'plugged-memory': 2 ** 29 },
};
const monitor = (over: Readonly<Record<string, unknown>> = {}): Monitor => {
  const execute = (command: string, args: object = {}): Promise<unknown> => {
    const { path, property } = args as { path?: string; property?: string };
    const answer = { ...answers, ...over }[command] ?? properties[`${path ?? ''} ${property ?? ''}`];
    return answer === undefined
      ? Promise.reject(new QmpError(command, 'GenericError', 'no such thing'))
      : Promise.resolve(answer);
  };
  return { path: 'monitor', version: { major: 7, minor: 2, micro: 0, package: '' }, execute };
};
const disks = [
  vmDisk('v0', { qdev: '/machine/peripheral/v0', model: 'virtio-blk-device' }),
  vmDisk('s0', { qdev: '/machine/peripheral/s0', model: 'scsi-hd' }),
  vmDisk('pflash1', { file: '/vars.fd', format: 'raw' }),
];

test('is kept with all that was plugged since, and its firmware apart from its disks', async () => {
  const [text] = await describeMachine(monitor(), disks, undefined);
  expect(text?.name).toBe('machine.json');
  expect(v.parse(machineFactsSchema, JSON.parse(text?.text ?? ''))).toEqual({
    ...{ format: 1, arch: 'x86_64', machine: 'pc-i440fx-7.2', cpu: 'Skylake-Server', cpus: 2 },
    memoryBytes: 2 ** 30 + 2 ** 29,
    flash: [{ file: '/vars.fd', format: 'raw', readOnly: false }],
    ...{ firmware: 'bios-256k.bin', kernel: '/boot/vmlinuz', append: 'root=/dev/vda' },
    disks: [
      { id: 'v0', model: 'virtio-blk-device' },
      { id: 's0', model: 'scsi-hd', controller: 'virtio-scsi-pci', bootIndex: 1 },
    ],
  });
});

test('is not kept of a QEMU without a machine, or one that does not tell', async () => {
  expect(await describeMachine(monitor({ 'query-cpus-fast': [] }), disks, undefined)).toEqual([]);
  const { execute, ...rest } = monitor();
  const old = {
    ...rest,
    execute: (command: string, args?: object) => {
      if (command === 'query-target') return Promise.reject(new QmpError(command, 'CommandNotFound', 'unknown'));
      return execute(command, args);
    },
  };
  expect(await describeMachine(old, disks, undefined)).toEqual([]);
});

test('that cannot be asked any more is an error', async () => {
  const lost = { ...monitor(), execute: () => Promise.reject(new Error('the monitor is gone')) };
  await expect(describeMachine(lost, disks, undefined)).rejects.toThrow('gone');
});

test.each([
  ['x86_64', 'Skylake-Server-x86_64-cpu', 'Skylake-Server'],
  ['aarch64', 'host-arm-cpu', 'host'],
  ['aarch64', 'cortex-a57-arm-cpu', 'cortex-a57'],
  ['ppc64', 'power9_v2.0-powerpc64-cpu', 'power9_v2.0'],
])('has the processor of an %s that is a %s', async (arch, type, cpu) => {
  const asked = monitor({ 'query-target': { arch }, 'query-cpus-fast': [{ 'qom-path': '/machine/other' }] });
  const { execute } = asked;
  const typed = {
    ...asked,
    execute: (command: string, args: object = {}) => {
      return 'path' in args && args.path === '/machine/other' ? Promise.resolve(type) : execute(command, args);
    },
  };
  const [text] = await describeMachine(typed, disks, undefined);
  expect(JSON.parse(text?.text ?? '')).toMatchObject({ arch, cpu });
});

test.each([
  ['a machine with options', { machine: 'virt,dumpdtb=/etc/passwd' }],
  ['a program elsewhere', { arch: 'x/evil' }],
  ['a controller with options', { disks: [{ id: 'a', controller: 'loader,file=/etc/shadow' }] }],
  ['a format with options', { flash: [{ file: '/a', format: 'raw,file=/b', readOnly: true }] }],
  ['a text that no argument can be', { append: 'root=\0' }],
])('is not read with %s', async (_what, forged) => {
  const [text] = await describeMachine(monitor(), disks, undefined);
  const facts = JSON.parse(text?.text ?? '') as object;
  expect(v.is(machineFactsSchema, facts)).toBe(true);
  expect(v.is(machineFactsSchema, { ...facts, ...forged })).toBe(false);
});
