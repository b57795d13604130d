// An image is what its file is: a VM that was started from it under another spelling uses it all the same, and "not used" is
// said only where it is known.
import { basename } from 'node:path';
import { symlinkSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Finding } from '../../src/host/recover/finding.js';
import { holdsPattern, imagePath, type BareDisk } from '../support/bare-qemu.js';
import { CutHarness, rootAndData } from '../support/cut-harness.js';
import { SlowProxy } from '../support/slow-proxy.js';
import { requires } from '../support/requires.js';

const disks = rootAndData;
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
  symlinkSync(at.folder.path('images'), at.folder.path('linked'));
  expect((await at.create('s1')).code).toBe(0);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const overlays = (folder: string): BareDisk[] =>
  disks.map(({ name }) => ({ name, format: 'qcow2', file: `${folder}/${basename(at.overlay(name))}` }));

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a VM started from its overlays', () => {
  describe.each([
    ['through a symbolic link', () => at.folder.path('linked')],
    ['by a path with dots in it', () => `${at.folder.path('linked')}/../images`],
    ['by a relative path', () => 'images'],
  ])('%s', (_how, folder) => {
    beforeEach(async () => {
      await at.restart(overlays(folder()));
    });

    test('is known to use them', async () => {
      const { monitor } = (await at.bridge(['status'])).json as { monitor: { disks: { set?: string }[] } };
      expect(monitor.disks.map(({ set }) => set)).toEqual(['s1', 's1']);
      expect(await at.bridge(['snapshot', 'delete', 's1', '--yes'])).toMatchObject({ code: 2 });
      expect((await at.bridge(['recover'])).json['findings']).toEqual([]);
      expect(at.images()).toHaveLength(4);
    });

    test('has them merged back', async () => {
      await at.vm.write('data0', 7, 0, 64);
      expect((await at.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
      expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    });
  });

  describe('through a symbolic link, and cut again', () => {
    beforeEach(async () => {
      await at.restart(overlays(at.folder.path('linked')));
      for (const { name } of disks) await at.vm.write(name, 7, 0, 64);
      expect((await at.create('s2')).error.message).toBe('none');
      for (const { name } of disks) await at.vm.write(name, 8, 64, 64);
    });

    test.each([
      ['commit', []],
      ['delete', ['--yes']],
    ])('has a newer set on them: no %s', async (command, words) => {
      const run = await at.bridge(['snapshot', command, 's1', ...words]);
      expect(run).toMatchObject({ code: 2, error: { code: 'E_NEWER_SETS' } });
      expect(run.error.message).toContain('s2');
    });

    test('nor a revert', async () => {
      await at.vm.quit();
      const run = await at.bridge(['snapshot', 'revert', 's1', '--yes']);
      expect(run).toMatchObject({ code: 2, error: { code: 'E_NEWER_SETS' } });
    });

    test.each(['running', 'shut off'])('has the older set merged by a prune (%s)', async (how) => {
      if (how === 'shut off') await at.vm.quit();
      expect((await at.bridge(['snapshot', 'prune', '--keep', '1', '--yes'])).error.message).toBe('none');
      const { json } = await at.bridge(['snapshot', 'show', 's2']);
      expect(json).toMatchObject({ level: 'filesystem' });
      if (how === 'running') {
        expect((await at.bridge(['snapshot', 'commit', 's2'])).error.message).toBe('none');
        await at.vm.quit();
        for (const disk of disks) {
          expect(await holdsPattern(imagePath(at.folder, disk), disk.format, 7, 0, 64)).toBe(true);
          expect(await holdsPattern(imagePath(at.folder, disk), disk.format, 8, 64, 64)).toBe(true);
        }
      }
    });
  });

  test('by a relative path, through a relay: that they are not used is not said, since it is not known', async () => {
    await at.restart(overlays('images'));
    await using relay = await SlowProxy.listen(at.folder.path('relay.sock'), at.vm.qmp, 0);
    const run = await at.bridge(['snapshot', 'commit', 's1', '--qmp', relay.path]);
    expect(run.code).not.toBe(0);
    expect(run.error.message).toContain('where that lies cannot be seen');
    expect(at.images()).toHaveLength(4);
  });
});

requires('qemu-system-x86_64', 'qemu-img')('a VM started from its bases', () => {
  test('through a symbolic link has lost the cut, and that is seen', async () => {
    const spelled = disks.map((disk) => ({
      ...disk,
      file: imagePath(at.folder, disk).replace('/images/', '/linked/'),
    }));
    await at.restart(spelled);
    const found = (await at.bridge(['recover'])).json['findings'] as Finding[];
    expect(found).toMatchObject([{ kind: 'base-written', status: 'done' }]);
    expect(await at.bridge(['snapshot', 'show', 's1'])).toMatchObject({ manifest: { level: 'none' } });
  });
});
