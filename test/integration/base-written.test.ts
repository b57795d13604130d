// A base that a VM was started from after the cut, and wrote to: where no time of a file tells of it, too. Whoever copies
// the set, or merges its overlay over what was written there, must know.
import { execa } from 'execa';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import type { Manifest } from '../../src/host/sets/manifest.js';
import type { DiskView } from '../../src/host/sets/set-view.js';
import { holdsPattern, imagePath, type BareDisk } from '../support/bare-qemu.js';
import { CutHarness } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

let at: CutHarness;
let loop: string | undefined;
afterEach(async () => {
  await at[Symbol.asyncDispose]();
  if (loop !== undefined) await execa('losetup', ['--detach', loop]);
  loop = undefined;
});

const show = async (): Promise<DiskView | undefined> => {
  const { json } = await at.bridge(['snapshot', 'show', 's1']);
  return (json['disks'] as DiskView[])[0];
};
const copy = async () => await at.bridge(['snapshot', 'copy', 's1', at.folder.path('copy'), '--format', 'raw']);
const commit = async (...words: string[]) => await at.bridge(['snapshot', 'commit', 's1', ...words]);
const asks = { code: 4, error: { code: 'E_DECLINED' } } as const;
const manifestOf = (set: string): Manifest =>
  JSON.parse(readFileSync(at.state(set, 'manifest.json'), 'utf8')) as Manifest;
const overlayOf = (set: string): string => manifestOf(set).disks[0]?.overlay.file ?? '';

function asOfAnotherBoot(): void {
  const { disks, ...rest } = manifestOf('s1');
  const [disk] = disks;
  if (disk?.base.asCut?.writes === undefined) throw new Error('the writes to the device were not recorded');
  const writes = { ...disk.base.asCut.writes, boot: 'of another day' };
  const base = { ...disk.base, asCut: { ...disk.base.asCut, writes } };
  writeFileSync(at.state('s1', 'manifest.json'), JSON.stringify({ ...rest, disks: [{ ...disk, base }] }));
}

/** With its disk behind a driver that the harness does not know. */
const withDisk = (node: string): string[] => [
  ...['-blockdev', `node-name=node-d0,${node}`],
  ...['-device', 'virtio-blk-pci,id=d0,drive=node-d0,serial=d0'],
];

async function cut(words: readonly string[]): Promise<void> {
  await at.vm.write('d0', 1, 0, 1024);
  const made = await at.create('s1', '--require', 'crash', ...words);
  expect(made.error.message).toBe('none');
  await at.vm.write('d0', 2, 0, 64);
  await at.vm.flush('d0');
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
  'losetup',
)('a base that was written to after the cut', () => {
  describe('on a block device', () => {
    const onLoop = (): string[] => withDisk(`driver=raw,file.driver=host_device,file.filename=${loop ?? ''}`);
    const start = async (): Promise<void> => {
      at = await CutHarness.start([], async (images) => {
        await execa('truncate', ['--size', '8M', `${images}/back.img`]);
        loop = (await execa('losetup', ['--find', '--show', `${images}/back.img`])).stdout;
        return onLoop();
      });
      await cut(['--overlay-dir', at.folder.path('images')]);
    };

    test('is known to hold the cut while nobody wrote to it', async () => {
      await start();
      await at.vm.quit();
      expect(await show()).toMatchObject({ holdsCut: true, isCutKnown: true, level: 'filesystem', notes: [] });
      expect((await copy()).json['doubts']).toEqual([]);
      expect((await commit('--offline')).error.message).toBe('none');
      expect(await holdsPattern(loop ?? '', 'raw', 2, 0, 64)).toBe(true);
    });

    test.each(['looked at while the VM ran on it', 'not looked at'])(
      'is known, %s, and copied and merged by nobody',
      async (how) => {
        await start();
        await at.restart([], onLoop());
        await at.vm.write('d0', 9, 0, 1024);
        if (how.startsWith('looked')) expect((await at.bridge(['recover'])).code).toBe(0);
        await at.vm.quit();
        expect(await show()).toMatchObject({ holdsCut: false, isCutKnown: true, level: 'none' });
        expect((await show())?.newest).toBeUndefined();
        expect((await copy()).code).toBe(2);
        expect(await commit('--offline')).toMatchObject(asks);
        const reverted = await at.bridge(['snapshot', 'revert', 's1', '--yes']);
        expect(reverted).toMatchObject({ code: 2, error: { code: 'E_BASE_LOST' } });
        expect(reverted.error.message).toContain('nothing was reverted; "snapshot delete" drops the overlays');
        expect(await holdsPattern(overlayOf('s1'), 'qcow2', 2, 0, 64)).toBe(true);
        expect(await holdsPattern(loop ?? '', 'raw', 9, 0, 1024)).toBe(true);
      },
    );

    test('that is the data file of an image is read and merged as a device', async () => {
      let node = '';
      at = await CutHarness.start([], async (images) => {
        await execa('truncate', ['--size', '8M', `${images}/back.img`]);
        loop = (await execa('losetup', ['--find', '--show', `${images}/back.img`])).stdout;
        const options = `data_file=${loop},data_file_raw=on`;
        await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, `${images}/d0.qcow2`, '8M']);
        node = `driver=qcow2,file.driver=file,file.filename=${images}/d0.qcow2`;
        return withDisk(`${node},data-file.driver=host_device,data-file.filename=${loop}`);
      });
      await cut([]);
      await at.vm.quit();
      expect((await copy()).error.message).toBe('none');
      expect((await commit('--offline')).error.message).toBe('none');
      expect(await holdsPattern(loop ?? '', 'raw', 2, 0, 64)).toBe(true);
    });

    test('after a boot is pruned over by nobody who was not asked', async () => {
      await start();
      expect((await at.create('s2', '--overlay-dir', at.folder.path('images'))).error.message).toBe('none');
      await at.vm.quit();
      asOfAnotherBoot();
      const prune = async (...words: string[]) => await at.bridge(['snapshot', 'prune', '--keep', '1', ...words]);
      const asked = await prune();
      expect(asked).toMatchObject(asks);
      expect(asked.error.message).toMatch(/cannot be known: .* is merged into \/dev\/loop\d+, over what may have been/);
      expect((await prune('--yes')).error.message).toBe('none');
      expect(await holdsPattern(loop ?? '', 'raw', 2, 0, 64)).toBe(true);
      // s2 was cut after that boot.
      const { json } = await at.bridge(['snapshot', 'show', 's2']);
      expect((json['disks'] as DiskView[])[0]).toMatchObject({ holdsCut: true, isCutKnown: true });
    });

    test('after a boot cannot be known, which is said', async () => {
      await start();
      await at.vm.quit();
      asOfAnotherBoot();
      const shown = await show();
      expect(shown).toMatchObject({ holdsCut: true, isCutKnown: false, level: 'filesystem' });
      expect(shown?.notes.join()).toContain('cannot be known');
      expect(await at.bridge(['recover'])).toMatchObject({ code: 0, json: { findings: [] } });
      const copied = await copy();
      expect(copied).toMatchObject({ code: 0 });
      expect(copied.stderr).toContain('cannot be known');
      expect((copied.json['doubts'] as string[]).join()).toContain('cannot be known');
      const revert = await at.bridge(['snapshot', 'revert', 's1']);
      expect(revert).toMatchObject(asks);
      expect(revert.error.message).toMatch(/cannot be known: .* Everything the VM wrote since/);
      expect(await commit('--offline')).toMatchObject(asks);
      expect((await commit('--offline', '--yes')).error.message).toBe('none');
    });
  });

  test('below one that is not there is not reverted to', async () => {
    const disk: BareDisk = { name: 'd0', format: 'raw' };
    at = await CutHarness.start([disk]);
    await cut([]);
    expect((await at.create('s2')).error.message).toBe('none');
    await at.vm.write('d0', 3, 0, 64);
    await at.vm.quit();
    renameSync(imagePath(at.folder, disk), at.folder.path('elsewhere'));
    const reverted = await at.bridge(['snapshot', 'revert', 's2', '--yes']);
    expect(reverted).toMatchObject({ code: 2, error: { code: 'E_NO_IMAGE' } });
    expect(reverted.error.message).toMatch(/d0\.raw is not there.*: nothing was reverted/);
    renameSync(at.folder.path('elsewhere'), imagePath(at.folder, disk));
    expect(await holdsPattern(overlayOf('s2'), 'qcow2', 3, 0, 64)).toBe(true);
  });

  test('in an external data file alone is known by that file', async () => {
    let node = '';
    at = await CutHarness.start([], async (images) => {
      const options = `data_file=${images}/d0.raw,data_file_raw=on,preallocation=metadata`;
      await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, `${images}/d0.qcow2`, '8M']);
      node = `driver=qcow2,file.driver=file,file.filename=${images}/d0.qcow2`;
      return withDisk(node);
    });
    await cut([]);
    await at.vm.quit();
    expect(await show()).toMatchObject({ holdsCut: true, isCutKnown: true });
    const before = readFileSync(at.folder.path('images/d0.qcow2'));
    await at.start([], withDisk(node));
    await at.vm.write('d0', 9, 0, 1024);
    await at.vm.quit();
    expect(readFileSync(at.folder.path('images/d0.qcow2')).equals(before)).toBe(true);
    expect(await show()).toMatchObject({ holdsCut: false, level: 'none' });
    expect((await copy()).error.message).toContain('d0.raw was changed after the cut');
    expect(await commit('--offline')).toMatchObject(asks);
  });

  test('is not merged over by a running VM without a question', async () => {
    const disk: BareDisk = { name: 'd0', format: 'raw' };
    at = await CutHarness.start([disk]);
    await cut([]);
    const overlay = at.overlay('d0');
    await at.restart([disk]);
    await at.vm.write('d0', 9, 0, 1024);
    await at.restart([{ ...disk, format: 'qcow2', file: overlay }]);
    expect(await commit()).toMatchObject(asks);
    expect((await commit('--yes')).error.message).toBe('none');
    await at.vm.quit();
    expect(await holdsPattern(imagePath(at.folder, disk), 'raw', 2, 0, 64)).toBe(true);
  });
});
