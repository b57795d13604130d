// What an overlay lies on: options that a path loses, secrets, chains, data files, and somebody else who changes it
// meanwhile. What is read back is read as a VM would that is started from the overlay.
import { execa } from 'execa';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { holdsPattern } from '../support/bare-qemu.js';
import { CutHarness, isOverlay, rootAndData } from '../support/cut-harness.js';
import { filesystemReport, freezeReport } from '../support/freeze-reports.js';
import { StepProxy } from '../support/lossy-proxy.js';
import { luksDisk, luksHolds, luksWords as luks } from '../support/luks.js';
import { requires } from '../support/requires.js';

const two = rootAndData;
let at: CutHarness;
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const device = (name: string): string[] => ['-device', `virtio-blk-pci,id=${name},drive=node-${name},serial=${name}`];
const qemuImg = async (...words: string[]): Promise<void> => {
  await execa('qemu-img', words);
};

/** One disk, made and opened as the words say, with one filesystem on it. */
async function startOne(name: string, extra: (images: string) => Promise<readonly string[]>): Promise<void> {
  at = await CutHarness.start([], extra);
  at.agent.report = freezeReport({ filesystems: [filesystemReport('/', name)] });
}

const MIB = 1024 * 1024;
async function slice(images: string): Promise<string[]> {
  await qemuImg('create', '-q', '-f', 'raw', `${images}/slice0.raw`, '32M');
  const options = `driver=raw,node-name=node-slice0,offset=${MIB},size=${8 * MIB}`;
  return ['-blockdev', `${options},file.driver=file,file.filename=${images}/slice0.raw`, ...device('slice0')];
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('an overlay', () => {
  describe('of a LUKS disk', () => {
    test('is made by QEMU with the disk’s own secret: nothing lands in clear text', { timeout: 120_000 }, async () => {
      await startOne('luks0', luksDisk);
      await at.vm.write('luks0', 0x41, 0, 64);
      const run = await at.create('s1');
      expect(run.error.message).toBe('none');
      expect(run.manifest.disks).toMatchObject([{ id: 'luks0', encryption: 'luks', level: 'filesystem' }]);
      await at.vm.write('luks0', 0x42, 0, 64);
      await at.vm.flush('luks0');
      const overlay = at.overlay('luks0');
      expect(await at.vm.control.execute('query-jobs')).toEqual([]);
      await at.vm.quit();
      expect(readFileSync(overlay).length).toBeGreaterThan(64 * 1024);
      expect(readFileSync(overlay).includes('BBBBBBBBBBBBBBBB')).toBe(false);
      expect(await luksHolds(at.folder.path('images/luks0.qcow2'), 0x41)).toBe(true);
      // As a VM is that is started from it: it finds its base, and the base its key.
      expect(await luksHolds(overlay, 0x42)).toBe(true);
      await at.start([], luks(overlay));
      await at.vm.write('luks0', 0x43, 0, 64);
      expect((await at.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
      await at.vm.quit();
      expect(at.images()).toEqual(['luks0.qcow2']);
      expect(await luksHolds(at.folder.path('images/luks0.qcow2'), 0x43)).toBe(true);
    });

    test('is not made if its secret is gone: the disk is left out, and named it is refused', async () => {
      at = await CutHarness.start(two, luksDisk);
      await at.vm.control.execute('object-del', { id: 's0' });
      const run = await at.create('s1');
      expect(run.code).toBe(0);
      const reason = 'its secret s0 is no longer in QEMU: its overlay would hold clear text';
      expect(run.manifest.leftOut).toMatchObject([{ reason }]);
      expect((await at.create('s2', '--disk', 'luks0')).error.message).toContain(reason);
    });

    test('is undone with everything of it if the cut fails', { timeout: 120_000 }, async () => {
      await startOne('luks0', luksDisk);
      at.agent.mood = 'refuses';
      expect((await at.create('s1')).code).toBe(4);
      expect(at.images()).toEqual(['luks0.qcow2']);
      const nodes = JSON.stringify(await at.vm.control.execute('query-named-block-nodes', { flat: true }));
      expect(nodes).not.toContain('"fsb-');
      expect(await at.vm.control.execute('query-jobs')).toEqual([]);
    });
  });

  describe('of a part of a file', () => {
    test('names offset and size, so that the VM reads the same bytes when it is started from it', async () => {
      await startOne('slice0', slice);
      const file = at.folder.path('images/slice0.raw');
      await at.vm.write('slice0', 5, 0, 64);
      const run = await at.create('s1');
      expect(run.error.message).toBe('none');
      expect(run.manifest.disks[0]?.base).toMatchObject({ file, format: 'raw' });
      await at.vm.write('slice0', 6, 64, 64);
      await at.vm.quit();
      const overlay = at.overlay('slice0');
      expect(await holdsPattern(overlay, 'qcow2', 5, 0, 64)).toBe(true);
      expect(await holdsPattern(overlay, 'qcow2', 6, 64, 64)).toBe(true);
      const node = `driver=qcow2,node-name=node-slice0,file.driver=file,file.filename=${overlay}`;
      await at.start([], ['-blockdev', node, ...device('slice0')]);
      expect((await at.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
      await at.vm.quit();
      expect(await holdsPattern(file, 'raw', 5, 1024, 64)).toBe(true);
      expect(await holdsPattern(file, 'raw', 6, 1024 + 64, 64)).toBe(true);
    });

    test('is not made where no header could name its options', async () => {
      await startOne('slice0', async (images) => {
        const deep = path.join(images, ...Array.from({ length: 5 }, () => 'd'.repeat(200)));
        mkdirSync(deep, { recursive: true });
        return await slice(deep);
      });
      const run = await at.create('s1', '--disk', 'slice0');
      expect(run).toMatchObject({ code: 2, error: { code: 'E_DISK' } });
      expect(run.error.message).toMatch(/its options take 1\d\d\d bytes, and an overlay can name its base with 1023/);
    });
  });

  test('of a linked clone, and of an image with a data file: what holds the cut is named', async () => {
    await startOne('clone0', async (images) => {
      await qemuImg('create', '-q', '-f', 'raw', `${images}/golden.raw`, '16M');
      // QEMU takes it from its working directory, which is above.
      const data = ['-o', 'data_file=images/df.raw,data_file_raw=on', 'images/df.qcow2', '16M'];
      await execa('qemu-img', ['create', '-q', '-f', 'qcow2', ...data], { cwd: path.dirname(images) });
      await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'golden.raw', '-F', 'raw', `${images}/clone0.qcow2`);
      const node = (name: string, file: string): string[] => [
        '-blockdev',
        `driver=qcow2,node-name=node-${name},file.driver=file,file.filename=${images}/${file}`,
        ...device(name),
      ];
      return [...node('clone0', 'clone0.qcow2'), ...node('df0', 'df.qcow2')];
    });
    const images = at.folder.path('images');
    const named = [
      { base: { file: `${images}/clone0.qcow2` }, below: [{ file: `${images}/golden.raw`, format: 'raw' }] },
      { base: { file: `${images}/df.qcow2` }, below: [], dataFiles: [`${images}/df.raw`] },
    ];
    const first = await at.create('s1');
    expect(first.error.message).toBe('none');
    expect(first.manifest.disks).toMatchObject(named);
    expect(first.manifest.disks[0]).not.toHaveProperty('dataFiles');
    const second = await at.create('s2');
    expect(second.manifest.disks).toMatchObject([
      {
        below: [
          { file: named[0]?.base.file, format: 'qcow2' },
          { file: `${images}/golden.raw`, format: 'raw' },
        ],
      },
      { below: [{ file: named[1]?.base.file }], dataFiles: [`${images}/df.raw`] },
    ]);
    for (const set of ['s2', 's1']) expect((await at.bridge(['snapshot', 'commit', set])).error.message).toBe('none');
  });

  test('and its base are recorded as they were at the cut', async () => {
    at = await CutHarness.start(two);
    await at.vm.write('data0', 1, 0, 64);
    const { manifest } = await at.create('s1');
    for (const { base, overlay } of manifest.disks) {
      for (const { file, asCut } of [base, overlay]) {
        const { dev, ino, size, mtimeMs } = statSync(file);
        expect(asCut).toMatchObject({ device: String(dev), inode: String(ino), size });
        expect(Math.abs((asCut?.mtimeMs ?? 0) - mtimeMs)).toBeLessThan(1);
      }
    }
    await at.vm.write('data0', 2, 0, 64);
    await at.vm.flush('data0');
    const [, data] = manifest.disks;
    const sizeNow = (file = ''): number => statSync(file).size;
    expect(sizeNow(data?.base.file)).toBe(data?.base.asCut?.size);
    expect(sizeNow(data?.overlay.file)).toBeGreaterThan(data?.overlay.asCut?.size ?? Infinity);
  });

  describe('is not laid on what somebody else changed', () => {
    const snapshot = async (): Promise<void> => {
      const file = at.folder.path('images/foreign.qcow2');
      const target = { 'node-name': 'node-root0', 'snapshot-node-name': 'foreign', 'snapshot-file': file };
      await at.vm.control.execute('blockdev-snapshot-sync', { ...target, format: 'qcow2' });
    };
    const expectNothing = async (): Promise<void> => {
      expect(await at.ourNodes()).toEqual([]);
      expect(at.images().filter((name) => isOverlay(name, 's1'))).toEqual([]);
      expect(at.agent.frozen).toBe(false);
    };

    test('after the plan: seen before the guest is held', async () => {
      at = await CutHarness.start(two);
      const step = { command: 'blockdev-add', when: 'before' } as const;
      await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
      const work = at.create('s1', '--qmp', proxy.path);
      await proxy.reached;
      await snapshot();
      proxy.goOn();
      const run = await work;
      expect(run).toMatchObject({ code: 5, error: { code: 'E_CHANGED' } });
      expect(run.error.message).toMatch(/disk root0 .*changed by somebody else meanwhile: it is .*foreign\.qcow2/);
      expect(at.agent.commands).not.toContain('bridge-freeze');
      await expectNothing();
    });

    test('while the guest is held: QEMU refuses the whole cut', async () => {
      at = await CutHarness.start(two);
      at.agent.onFreeze = snapshot;
      expect(await at.create('s1')).toMatchObject({ code: 5, error: { code: 'E_CUT' } });
      await expectNothing();
    });

    test('so that a cut which was answered keeps its level, though QEMU ended before it could be asked again', async () => {
      at = await CutHarness.start(two);
      const step = { command: 'query-blockstats', nth: 2, when: 'before' } as const;
      await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
      const work = at.create('s1', '--qmp', proxy.path);
      await proxy.reached;
      expect(at.agent.frozen).toBe(false);
      await at.vm.kill();
      proxy.goOn();
      const run = await work;
      expect(run.error.message).toBe('none');
      expect(run.manifest).toMatchObject({ state: 'cut', level: 'filesystem' });
      await at.vm[Symbol.asyncDispose]();
    });
  });
});

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a guest with a stock qemu-ga', () => {
  const start = async (mountpoint: string, serial: string): Promise<void> => {
    at = await CutHarness.start(two);
    at.agent.kind = 'stock';
    at.agent.stockSerials = ['root0', 'data0'];
    at.agent.unfreezable = [{ serial, mountpoint, type: 'vfat' }];
  };

  test('that boots by UEFI is worth filesystem: /boot/efi cannot be frozen, and is not counted', async () => {
    await start('/boot/efi', 'root0');
    // What the freeze of the other filesystem on that disk writes.
    at.agent.onFreeze = () => at.vm.write('root0', 1, 0, 4);
    const run = await at.create('s1');
    expect(run.error.message).toBe('none');
    expect(run).toMatchObject({ code: 0, manifest: { level: 'filesystem' } });
    expect(run.manifest.evidence.join()).toContain('/boot/efi (vfat) cannot be frozen, and is not counted');
    expect(run.manifest.disks[0]?.evidence.join()).toContain('/boot/efi was not held: vfat cannot be frozen');
    expect(run.manifest.guest?.filesystems.map(({ held }) => held)).toEqual(['frozen', 'frozen', 'none']);
  });

  test('is worth no more for a disk whose data no kernel can freeze, unless nothing was written to it', async () => {
    await start('/cards', 'data0');
    at.agent.stockSerials = ['root0'];
    expect(await at.create('s1')).toMatchObject({ code: 0, manifest: { level: 'filesystem' } });
    at.agent.onFreeze = () => at.vm.write('data0', 1, 0, 4);
    const run = await at.create('s2');
    expect(run).toMatchObject({ code: 7, manifest: { level: 'crash' } });
    expect(run.manifest.disks.map(({ level }) => level)).toEqual(['filesystem', 'crash']);
  });

  test('is crash if one that can be frozen was not', async () => {
    await start('/boot/efi', 'root0');
    at.agent.unfreezable = [...at.agent.unfreezable, { serial: 'data0', mountpoint: '/busy', type: 'xfs' }];
    const run = await at.create('s1');
    expect(run.code).toBe(4);
    expect(run.error.message).toContain('2 of 3 filesystems were frozen');
  });
});
