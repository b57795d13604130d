// Commit of libvirt domains without a guest: what libvirt puts between a disk's device and its image.
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runBridge } from '../../src/cli/bridge/program.js';
import { createBlank } from '../../src/testing/disks.js';
import { holdsPattern } from '../support/bare-qemu.js';
import { images } from '../support/libvirt-bridge.js';
import { LibvirtHost } from '../support/libvirt.js';
import { requires } from '../support/requires.js';

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
  const firmware = Buffer.alloc(65_536);
  // cli; hlt; jmp back, at the reset vector.
  Buffer.from([0xfa, 0xf4, 0xeb, 0xfd]).copy(firmware, 0xfff0);
  await writeFile(path.join(dir, 'halt.bin'), firmware);
  const image = path.join(dir, 'disk.qcow2');
  await createBlank(image, 16, 'qcow2');
  const xml = `<domain type='qemu'>
  <name>${name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><loader readonly='yes' type='rom'>${dir}/halt.bin</loader></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' ${driver}/><source file='${image}'/><target dev='vda' bus='virtio'/></disk>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
  <seclabel type='none'/>
</domain>`;
  await host.run(['create', await host.file(xml)]);
  return { dir, image };
}

async function bridge(name: string, dir: string, ...words: string[]): Promise<{ code: number; stderr: string }> {
  const vm = ['--vm', `libvirt:${name}`, '--connect', host.uri, '--state-dir', path.join(dir, 'state')];
  const err: string[] = [];
  const streams = { stdout: () => undefined, stderr: (text: string) => void err.push(text) };
  const code = await runBridge([...words, ...vm], streams, new AbortController().signal);
  return { code, stderr: err.join('') };
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
