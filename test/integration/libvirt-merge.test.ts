// Commit of libvirt domains without a guest: what libvirt puts between a disk's device and its image.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createBlank } from '../../src/testing/disks.js';
import { holdsPattern } from '../support/bare-qemu.js';
import { addHaltingFirmware, haltingDomainXml } from '../support/halting-domain.js';
import { images } from '../support/libvirt-bridge.js';
import { LibvirtHost } from '../support/libvirt.js';
import { requires } from '../support/requires.js';
import { runTool, type Run } from '../support/run-tool.js';

let host: LibvirtHost;
beforeAll(async () => {
  host = await LibvirtHost.start();
}, 120_000);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

/** A domain whose processor halts at once. */
async function startDomain(name: string, driver: string): Promise<{ readonly dir: string; readonly image: string }> {
  const dir = path.join(host.dir, name);
  await mkdir(dir);
  await addHaltingFirmware(dir);
  const image = path.join(dir, 'disk.qcow2');
  await createBlank(image, 16, 'qcow2');
  const devices = `<disk type='file' device='disk'><driver name='qemu' type='qcow2' ${driver}/><source file='${image}'/><target dev='vda' bus='virtio'/></disk>`;
  await host.run(['create', await host.file(haltingDomainXml({ name, dir, devices }))]);
  return { dir, image };
}

async function bridge(name: string, dir: string, ...words: string[]): Promise<Run> {
  return await runTool([
    ...words,
    '--vm',
    `libvirt:${name}`,
    '--connect',
    host.uri,
    '--state-dir',
    path.join(dir, 'state'),
  ]);
}

async function guestWrites(name: string, pattern: number): Promise<void> {
  const line = `qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "aio_write -P ${pattern} 0 64k"`;
  await host.run(['qemu-monitor-command', name, '--hmp', line]);
}

requires(
  'root',
  'libvirtd',
  'virsh',
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a libvirt domain', () => {
  test.each([
    ['copy_on_read', "copy_on_read='on'"],
    ['nothing more', ''],
  ])('with %s is cut and commits', async (what, driver) => {
    const name = what === 'nothing more' ? 'plain' : 'cor';
    const { dir, image } = await startDomain(name, driver);
    await guestWrites(name, 1);
    const create = await bridge(name, dir, 'snapshot', 'create', '--name', 's1', '--require', 'crash');
    expect(create).toMatchObject({ code: 0 });
    expect((await images({ host, name }))['vda']).toMatch(/\/disk\.s1-[0-9a-f]{8}\.qcow2$/);
    await guestWrites(name, 2);
    const commit = await bridge(name, dir, 'snapshot', 'commit', 's1');
    expect(commit.stderr).not.toContain('fsfreeze-bridge:');
    expect(commit.code).toBe(0);
    expect(await images({ host, name })).toEqual({ vda: image });
    await host.run(['destroy', name]);
    expect(await holdsPattern(image, 'qcow2', 2, 0, 64)).toBe(true);
  });
});
