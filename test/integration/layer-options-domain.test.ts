// A libvirt domain's disk that is part of a file (`<slices>`): libvirt writes names of its own into headers, and what is
// copied, reverted, merged and started has the same bytes all the same.
import { execa } from 'execa';
import { statSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { backingOf } from '../../src/host/images/references.js';
import { BareDomain } from '../support/bare-domain.js';
import { holdsPattern } from '../support/bare-qemu.js';
import { LibvirtHost } from '../support/libvirt.js';
import { requires } from '../support/requires.js';

const MIB = 1024 * 1024;
let host: LibvirtHost;
beforeAll(async () => {
  host = await LibvirtHost.start();
}, 120_000);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

const devices = (dir: string): string =>
  `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${dir}/s.raw'><slices><slice type='storage' offset='${4 * MIB}' size='${4 * MIB}'/></slices></source><target dev='vda' bus='virtio'/></disk>`;

requires(
  'root',
  'libvirtd',
  'virsh',
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a domain’s disk that is part of a file', () => {
  test('has the same bytes in a copy, after a prune, a revert and a commit', { timeout: 240_000 }, async () => {
    const dir = await BareDomain.folder(host, 'slices');
    await execa('qemu-img', ['create', '-q', '-f', 'raw', `${dir}/s.raw`, '12M']);
    for (const pattern of [1, 2, 3]) {
      await execa('qemu-io', ['-f', 'raw', '-c', `write -P ${pattern} ${4 * (pattern - 1)}M 4M`, `${dir}/s.raw`]);
    }
    await using domain = await BareDomain.start(host, 'slices', { devices });
    const write = async (pattern: number, at: number): Promise<void> => {
      const line = `qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "aio_write -P ${pattern} ${at}k 64k"`;
      await domain.virsh('qemu-monitor-command', '--hmp', line);
    };
    const tool = async (...words: string[]) => {
      const run = await domain.bridge(['snapshot', ...words]);
      expect(run.error.message).toBe('none');
      return run;
    };
    const cut = async (set: string): Promise<string> => {
      const { manifest } = await tool('create', '--name', set, '--require', 'crash');
      return manifest.disks[0]?.overlay.file ?? '';
    };

    await cut('s1');
    await tool('copy', 's1', `${dir}/copy`, '--format', 'raw');
    expect(statSync(`${dir}/copy/vda.raw`).size).toBe(4 * MIB);
    expect(await holdsPattern(`${dir}/copy/vda.raw`, 'raw', 2, 0, 4096)).toBe(true);

    await write(8, 0);
    const overlay = await cut('s2');
    await write(9, 64);
    await tool('prune', '--keep', '1', '--yes');
    expect(await backingOf(overlay)).toBe(`${dir}/s.raw`);

    await domain.virsh('destroy');
    await tool('revert', 's2', '--yes');
    expect(await holdsPattern(overlay, 'qcow2', 8, 0, 64)).toBe(true);
    expect(await holdsPattern(overlay, 'qcow2', 2, 64, 4096 - 64)).toBe(true);

    await domain.virsh('start');
    await write(7, 128);
    await tool('commit', 's2');
    await domain.virsh('destroy');
    expect(await domain.definition()).toContain(`offset='${4 * MIB}'`);
    for (const [pattern, from, length] of [
      [1, 0, 4096],
      [8, 4096, 64],
      [2, 4096 + 64, 64],
      [7, 4096 + 128, 64],
      [3, 8192, 4096],
    ] as const) {
      expect(await holdsPattern(`${dir}/s.raw`, 'raw', pattern, from, length)).toBe(true);
    }
    await domain.virsh('start');
  });
});
