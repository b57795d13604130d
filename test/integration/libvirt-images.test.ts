// What libvirt will start a domain with, while its images are not there, and after it was renamed.
import { readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { createBlank } from '../../src/testing/disks.js';
import { BareDomain } from '../support/bare-domain.js';
import { requires } from '../support/requires.js';
import { BARE_DOMAIN_NEEDS, sharedLibvirt } from '../support/shared-libvirt.js';

const host = sharedLibvirt();

/** Its disk in a folder of its own, that can be taken away. */
async function domainNamed(name: string): Promise<BareDomain & { readonly images: string }> {
  const dir = await BareDomain.folder(host(), name);
  const images = await BareDomain.folder(host(), `${name}.images`);
  await createBlank(path.join(images, 'a.qcow2'), 16, 'qcow2');
  const source = `<driver name='qemu' type='qcow2'/><source file='${path.join(images, 'a.qcow2')}'/>`;
  const devices = (): string => `<disk type='file' device='disk'>${source}<target dev='vda' bus='virtio'/></disk>`;
  const domain = await BareDomain.start(host(), path.basename(dir), { devices });
  return Object.assign(domain, { images });
}

async function cut(domain: BareDomain): Promise<string> {
  const made = await domain.bridge(['snapshot', 'create', '--name', 's1', '--require', 'crash']);
  expect(made.error.message).toBe('none');
  return made.manifest.disks[0]?.overlay.file ?? '';
}

requires(...BARE_DOMAIN_NEEDS)('a libvirt domain', () => {
  // libvirt asks QEMU anew for what it can do when either is new.
  vi.setConfig({ testTimeout: 120_000 });

  test('whose images are not mounted keeps its definition: by delete, and by recover of a set that was being cut', async () => {
    await using domain = await domainNamed('unmounted');
    const overlay = await cut(domain);
    const write = `qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 2 0 64k"`;
    const flush = write.replace(/"write.*"/, '"flush"');
    for (const line of [write, flush]) await domain.virsh('qemu-monitor-command', '--hmp', line);
    await domain.virsh('destroy');
    const before = await domain.definition();
    expect(before).toContain(`<source file='${overlay}'`);
    await rename(domain.images, `${domain.images}.away`);
    const asked = await domain.bridge(['snapshot', 'delete', 's1']);
    expect(asked.error.message).toContain(`${overlay} is not there`);
    expect(asked.code).toBe(4);
    expect(await domain.definition()).toBe(before);

    const file = await domain.state('s1', 'manifest.json');
    const manifest = JSON.parse(await readFile(file, 'utf8')) as Manifest;
    await writeFile(file, JSON.stringify({ ...manifest, state: 'cutting' }));
    expect((await domain.bridge(['recover'])).code).toBe(8);
    expect(await domain.definition()).toBe(before);
    await rename(`${domain.images}.away`, domain.images);
    expect((await domain.bridge(['recover'])).code).toBe(0);
    expect(await domain.definition()).toBe(before);
    expect((await domain.bridge(['snapshot', 'show', 's1'])).manifest.state).toBe('cut');

    // Told to, it forgets the set of images that are not there, and leaves the definition as it is.
    await rename(domain.images, `${domain.images}.away`);
    expect((await domain.bridge(['snapshot', 'delete', 's1', '--yes'])).code).toBe(0);
    expect(await domain.definition()).toBe(before);
    await rename(`${domain.images}.away`, domain.images);
  });

  test('that was renamed since the cut gets its base back when the set is committed', async () => {
    await using domain = await domainNamed('old-name');
    const overlay = await cut(domain);
    await domain.virsh('destroy');
    await domain.rename('new-name');
    expect(await domain.definition()).toContain(`<source file='${overlay}'`);
    expect((await domain.bridge(['snapshot', 'commit', 's1', '--offline'])).error.message).toBe('none');
    expect(await domain.definition()).toContain(`<source file='${path.join(domain.images, 'a.qcow2')}'`);
    await domain.virsh('start');
  });

  test('that was renamed since the cut, and is saved, is neither reverted, committed nor deleted', async () => {
    await using domain = await domainNamed('old-saved');
    const overlay = await cut(domain);
    await domain.virsh('destroy');
    await domain.rename('new-saved');
    await domain.virsh('start');
    await domain.virsh('managedsave');
    for (const words of [['revert'], ['commit', '--offline'], ['delete']]) {
      const refused = await domain.bridge(['snapshot', ...words, 's1', '--yes']);
      expect(refused).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
      expect(refused.error.message).toContain('the managed save of libvirt domain new-saved goes on with it');
    }
    expect(await domain.definition()).toContain(`<source file='${overlay}'`);
  });
});
