// One libvirtd for all tests of a file, whose domains need no guest.
import { afterAll, beforeAll } from 'vitest';
import { LibvirtHost } from './libvirt.js';

/** The needs of a test on domains without a guest: for `requires`. */
export const BARE_DOMAIN_NEEDS = ['root', 'libvirtd', 'virsh', 'qemu-system-x86_64', 'qemu-img'] as const;

/** Starts it before the first test, and ends it after the last one. */
export function sharedLibvirt(): () => LibvirtHost {
  let host: LibvirtHost | undefined;
  beforeAll(async () => {
    host = await LibvirtHost.start();
  });
  afterAll(async () => {
    await host?.[Symbol.asyncDispose]();
  });
  return () => {
    if (host === undefined) throw new Error('libvirtd is started before the first test');
    return host;
  };
}
