import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import { libvirtAddress, otherHost, parseLibvirtAddress } from '../../../../../src/host/vm/libvirt/address.js';

test.each([
  { domain: 'db1', uri: undefined },
  { domain: 'win 10, old', uri: 'qemu:///session' },
  { domain: '5f5b0f8e-2d4c-4c43-9a7e-6c2f2b1d0a01', uri: 'qemu+unix:///system?socket=/run/x&no_verify=1' },
])('an address is read back as it was: %o', (address) => {
  expect(parseLibvirtAddress(libvirtAddress(address))).toEqual(address);
});

test('a path is no address', () => {
  expect(parseLibvirtAddress('/run/libvirt:x')).toBeUndefined();
});

test.each([
  'qemu:///system',
  'qemu:///session?socket=/run/x',
  'qemu+unix:///system',
  'qemu+tcp:///system',
  'qemu+ssh://root@localhost/system',
  'qemu+tls://[::1]/system',
  `qemu://${hostname()}/system`,
  'test:///default',
])('%s leads to this host', (uri) => {
  expect(otherHost(uri)).toBeUndefined();
});

test.each([
  ['qemu+ssh://root@node7/system?keyfile=/x', 'node7'],
  ['qemu+tcp://node7:16509/system', 'node7'],
  ['qemu://node7.example.org/system', 'node7.example.org'],
  ['qemu+libssh2://[fe80::7]:22/system', '[fe80::7]'],
  ['qemu+ssh://localhost:2222/system', 'the host behind localhost:2222'],
  ['qemu+ext:///system?command=/x', 'the host that its command leads to'],
])('%s leads to another host', (uri, host) => {
  expect(otherHost(uri)).toBe(host);
});
