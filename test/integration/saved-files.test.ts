// What belongs to a plain QEMU beside its disks: the variables of its firmware, copied after the cut.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { renderManifest } from '../../src/cli/bridge/render-manifest.js';
import type { BareDisk } from '../support/bare-qemu.js';
import { CutHarness } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

const disks: readonly BareDisk[] = [{ name: 'root0', format: 'qcow2' }];

requires('qemu-system-x86_64', 'qemu-img')('beside the disks of a plain QEMU', () => {
  test('the variables of its firmware are kept with the set, said to be copied after the cut, and go with it', async () => {
    await using at = await CutHarness.start(disks);
    await at.vm.quit();
    const variables = Buffer.alloc(65_536, 'variables');
    mkdirSync(at.folder.path('firmware'));
    writeFileSync(at.folder.path('firmware/vars.fd'), variables);
    const flash = (unit: number, file: string): string[] => [
      '-drive',
      `if=pflash,unit=${unit},format=raw,file=${file}`,
    ];
    await at.start(disks, [
      ...flash(0, `${at.folder.path('halt.bin')},readonly=on`),
      ...flash(1, at.folder.path('firmware/vars.fd')),
    ]);
    const { code, manifest } = await at.create('s1');
    expect(code).toBe(0);
    expect(manifest.disks.map(({ id }) => id)).toEqual(['root0']);
    expect(manifest.saved).toMatchObject([
      {
        name: 'nvram/vars.fd',
        what: 'variables of the firmware',
        from: at.folder.path('firmware/vars.fd'),
        size: variables.length,
        copied: 'after the cut',
      },
    ]);
    expect(readFileSync(at.state('s1/nvram/vars.fd')).equals(variables)).toBe(true);
    expect(Date.parse(manifest.saved?.[0]?.copiedAt ?? '')).toBeGreaterThanOrEqual(Date.parse(manifest.createdAt));
    const shown = (await at.bridge(['snapshot', 'show', 's1'])).manifest;
    expect(shown.saved).toEqual(manifest.saved);
    expect(renderManifest(shown).join('\n')).toContain(
      `nvram/vars.fd: variables of the firmware, ${at.folder.path('firmware/vars.fd')} (65536 bytes, copied after the cut)`,
    );
  });

  test('a QEMU without any keeps nothing', async () => {
    await using at = await CutHarness.start(disks);
    const { code, manifest } = await at.create('s1');
    expect([code, manifest.saved]).toEqual([0, undefined]);
  });
});
