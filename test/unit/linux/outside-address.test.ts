// Which addresses are known to be those of other machines.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { isKnownOutside } from '../../../src/linux/outside-address.js';
import { FakeMachine } from '../../support/fake-machine.js';

let dir: string;
let machine: FakeMachine;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-outside-'));
  machine = new FakeMachine(dir);
  machine.network();
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});
const known = (address: string): boolean => isKnownOutside(address, machine);

test.each([
  ['on the network of a card', '192.0.2.7', true],
  ['behind a router', '203.0.113.1', true],
  ["a pod's, behind a bridge", '10.42.0.7', false],
  ["this machine's own", '192.0.2.2', false],
  ['loopback', '127.0.0.1', false],
  ['IPv6, into whose routes nobody looks', '2001:db8::7', false],
  ['a name', 'storage.example', false],
])('%s: %s', (_name, address, expected) => {
  expect(known(address)).toBe(expected);
});

test('where a service address may be turned into that of a pod, nothing is known', () => {
  mkdirSync(join(machine.sysRoot, 'module/nf_nat'), { recursive: true });
  expect(known('192.0.2.7')).toBe(false);
});

test('where nobody says which addresses are ours, nothing is known', () => {
  rmSync(join(machine.procRoot, 'net/fib_trie'));
  expect(known('192.0.2.7')).toBe(false);
});

test('a VLAN on a bond of cards leads outside, one on a bridge does not', () => {
  const virtual = (name: string, type: string, lower: string): void => {
    machine.file(`devices/virtual/net/${name}/uevent`, `DEVTYPE=${type}\n`);
    machine.link(`devices/virtual/net/${name}/lower_${lower}`, `class/net/${lower}`);
    machine.link(`class/net/${name}`, `devices/virtual/net/${name}`);
  };
  virtual('bond0', 'bond', 'eth0');
  virtual('bond0.7', 'vlan', 'bond0');
  virtual('cni0.7', 'vlan', 'cni0');
  const route = (device: string, destination: string): string =>
    `${device}\t${destination}\t00000000\t1\t0\t0\t0\t00FFFFFF`;
  machine.procFile('net/route', ['Iface', route('bond0.7', '0001000A'), route('cni0.7', '0002000A'), ''].join('\n'));
  expect([known('10.0.1.9'), known('10.0.2.9'), known('10.0.3.9')]).toEqual([true, false, false]);
});
