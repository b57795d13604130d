import { expect, test } from 'vitest';
import { libvirtAddress, parseLibvirtAddress } from '../../../../../src/host/vm/libvirt/address.js';

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
