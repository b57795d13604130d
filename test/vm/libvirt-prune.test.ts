// `snapshot prune` on a domain of a real libvirtd: its own blockcommit, its view of the chain, and its definition.
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { holdsPattern } from '../support/bare-qemu.js';
import { domainBridge, images } from '../support/libvirt-bridge.js';
import { LibvirtHost } from '../support/libvirt.js';
import { startOddDomain, type OddDomain } from '../support/odd-domain.js';
import { requires } from '../support/requires.js';

// Each its own: the odd domain has one folder and one name.
let host: LibvirtHost;
beforeEach(async () => {
  host = await LibvirtHost.start();
}, 120_000);
afterEach(async () => {
  await host[Symbol.asyncDispose]();
});

async function write({ name }: OddDomain, pattern: number): Promise<void> {
  for (const io of [
    `aio_write -P ${pattern} 0 64k`,
    `aio_write -P ${pattern} ${pattern * 64}k 64k`,
    'aio_flush',
    'flush',
  ]) {
    const line = `qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "${io}"`;
    expect(await host.run(['qemu-monitor-command', name, '--hmp', line])).toBe('');
  }
}

/** As cut-harness: at the cut of sN the guest has written N over what was at 0, and N at N * 64 KiB. */
async function cutThree(domain: OddDomain): Promise<void> {
  for (const count of [1, 2, 3]) {
    await write(domain, count);
    const words = ['--name', `s${count}`, '--disk', 'vda', '--require', 'crash'];
    expect(await domainBridge(domain, 'snapshot', 'create', ...words)).toMatchObject({ exitCode: 0 });
  }
  await write(domain, 4);
}

/** The one that is left. */
async function overlayOf({ dir }: OddDomain): Promise<string> {
  return path.join(dir, (await readdir(dir)).find((name) => name.endsWith('.qcow2')) ?? 'none');
}

async function expectPruned(domain: OddDomain): Promise<void> {
  expect(await domainBridge(domain, 'snapshot', 'prune', '--keep', '1', '--yes')).toMatchObject({
    exitCode: 0,
    json: { merged: ['s1', 's2'], kept: ['s3'] },
  });
  expect((await readdir(domain.dir)).filter((name) => name.endsWith('.qcow2'))).toHaveLength(1);
  const copy = path.join(domain.dir, 'copy');
  expect(await domainBridge(domain, 'snapshot', 'copy', 's3', copy)).toMatchObject({ exitCode: 0 });
  const [file = ''] = (await readdir(copy)).filter((name) => name.endsWith('.qcow2'));
  for (const [offset, pattern] of [3, 1, 2, 3, 0].entries()) {
    expect(await holdsPattern(path.join(copy, file), 'qcow2', pattern, offset * 64, 64), `at ${offset}`).toBe(true);
  }
}

requires(
  'root',
  'loop',
  'libvirtd',
  'virsh',
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
  'qemu-nbd',
)('prune', () => {
  test('of a running domain: libvirt merges, and knows the chain that is left', async () => {
    await using domain = await startOddDomain(host);
    await cutThree(domain);
    await expectPruned(domain);
    expect(await images(domain)).toMatchObject({ vda: await overlayOf(domain) });
    const xml = await host.run(['dumpxml', domain.name]);
    expect(xml).not.toMatch(/raw(\.s1)?\.s[12]\.qcow2/);
    expect(await domainBridge(domain, 'snapshot', 'commit', 's3')).toMatchObject({ exitCode: 0 });
    expect(await images(domain)).toMatchObject(domain.images);
    await host.run(['destroy', domain.name]);
    expect(await holdsPattern(domain.images.vda, 'raw', 4, 0, 64)).toBe(true);
  });

  test('of one that is defined and shut off: it starts from what is left', async () => {
    await using domain = await startOddDomain(host);
    await host.run(['define', await host.file(await host.run(['dumpxml', domain.name]))]);
    try {
      await cutThree(domain);
      await host.run(['destroy', domain.name]);
      await expectPruned(domain);
      await host.run(['start', domain.name]);
      expect(await images(domain)).toMatchObject({ vda: await overlayOf(domain) });
    } finally {
      await host.virsh(['undefine', domain.name]);
    }
  });
});
