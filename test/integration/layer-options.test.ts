// Disks whose image a path alone does not open as it was: part of a file, another backing file than the header's, a data
// file by a relative name. Whatever writes a header or opens an image afterwards gives the same bytes, wherever it is run.
import { execa } from 'execa';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { backingOf } from '../../src/host/images/references.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { holdsPattern } from '../support/bare-qemu.js';
import { CutHarness } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

let at: CutHarness;
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const MIB = 1024 * 1024;
const device = ['-device', 'virtio-blk-pci,id=vd0,drive=node-vd0,serial=vd0'];
const qemuImg = async (...words: string[]): Promise<void> => {
  await execa('qemu-img', words);
};
const qemuIo = async (file: string, format: string, command: string): Promise<void> => {
  await execa('qemu-io', ['-f', format, '-c', command, file]);
};
const image = (name: string): string => at.folder.path(`images/${name}`);
const create = async (set: string): Promise<Manifest> => {
  const run = await at.create(set, '--require', 'crash');
  expect(run.error.message).toBe('none');
  return run.manifest;
};
const tool = async (...words: string[]): Promise<void> => {
  expect((await at.bridge(['snapshot', ...words])).error.message).toBe('none');
};
const copied = async (set: string): Promise<string> => {
  await tool('copy', set, at.folder.path('copy'), '--format', 'raw');
  return at.folder.path('copy/vd0.raw');
};
/** As a version wrote it that did not record QEMU's names of layers. */
const age = (set: string): void => {
  const file = at.state(set, 'manifest.json');
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as Manifest;
  for (const { base, below = [] } of manifest.disks) for (const layer of [base, ...below]) delete layer.name;
  writeFileSync(file, JSON.stringify(manifest));
};

/** 1, 2 and 3, each over 4 MiB: the disk is the 4 MiB of 2. */
async function slice(images: string): Promise<string[]> {
  const file = `${images}/vd0.raw`;
  await qemuImg('create', '-q', '-f', 'raw', file, '16M');
  for (const pattern of [1, 2, 3]) await qemuIo(file, 'raw', `write -P ${pattern} ${4 * (pattern - 1)}M 4M`);
  return [
    '-blockdev',
    `driver=raw,node-name=node-vd0,offset=${4 * MIB},size=${4 * MIB},file.driver=file,file.filename=${file}`,
    ...device,
  ];
}

const needed = requires('qemu-system-x86_64', 'qemu-img', 'qemu-io');

needed('a disk that is part of a file', () => {
  beforeEach(async () => {
    at = await CutHarness.start([], slice);
  });
  const expectRest = async (): Promise<void> => {
    expect(await holdsPattern(image('vd0.raw'), 'raw', 1, 0, 4096)).toBe(true);
    expect(await holdsPattern(image('vd0.raw'), 'raw', 3, 8192, 4096)).toBe(true);
  };

  test.each([
    ['', false],
    [', of a set of an older version', true],
  ])('is copied as the guest sees it%s', async (_which, isOld) => {
    const { disks } = await create('s1');
    expect(disks[0]?.base.name).toContain(`"offset": ${4 * MIB}`);
    if (isOld) age('s1');
    await at.vm.write('vd0', 9, 0, 64);
    const file = await copied('s1');
    expect(statSync(file).size).toBe(4 * MIB);
    expect(await holdsPattern(file, 'raw', 2, 0, 4096)).toBe(true);
  });

  test.each([
    ['', false],
    [', by a set of an older version', true],
  ])('is reverted to the same bytes%s', async (_which, isOld) => {
    await create('s1');
    if (isOld) age('s1');
    await at.vm.write('vd0', 9, 0, 64);
    await at.vm.quit();
    await tool('revert', 's1', '--yes');
    expect(await holdsPattern(at.overlay('vd0'), 'qcow2', 2, 0, 4096)).toBe(true);
    await tool('revert', 's1', '--yes');
    expect(await holdsPattern(at.overlay('vd0'), 'qcow2', 2, 0, 4096)).toBe(true);
  });

  test.each([
    ['running', true, false],
    ['shut off', false, false],
    ['shut off, with sets of an older version', false, true],
  ])('has an old set merged out of the way, %s', async (_how, isRunning, isOld) => {
    await create('s1');
    await at.vm.write('vd0', 8, 0, 64);
    const overlay = (await create('s2')).disks[0]?.overlay.file ?? '';
    await at.vm.write('vd0', 9, 64, 64);
    for (const set of isOld ? ['s1', 's2'] : []) age(set);
    if (!isRunning) await at.vm.quit();
    await tool('prune', '--keep', '1', '--yes');
    if (isRunning) await at.vm.quit();
    expect(await backingOf(overlay)).toBe(image('vd0.raw'));
    for (const [pattern, from, length] of [
      [8, 0, 64],
      [9, 64, 64],
      [2, 128, 4096 - 128],
    ] as const) {
      expect(await holdsPattern(overlay, 'qcow2', pattern, from, length)).toBe(true);
    }
    await expectRest();
    // What is left is a set as any other.
    const file = await copied('s2');
    expect(await holdsPattern(file, 'raw', 8, 0, 64)).toBe(true);
    expect(await holdsPattern(file, 'raw', 2, 64, 4096 - 64)).toBe(true);
    await tool('commit', 's2', '--offline', '--yes');
    expect(await holdsPattern(image('vd0.raw'), 'raw', 9, 4096 + 64, 64)).toBe(true);
    await expectRest();
  });

  test.each([
    ['', false],
    [', of a set of an older version', true],
  ])('is started as it was after a commit%s: by words with its offset, and by no link', async (_which, isOld) => {
    await create('s1');
    if (isOld) age('s1');
    const link = at.state('.images', 'vd0');
    expect(existsSync(link)).toBe(true);
    await at.vm.write('vd0', 9, 0, 64);
    await tool('commit', 's1');
    expect(existsSync(link)).toBe(false);
    await at.vm.quit();
    const { stderr } = await at.bridge(['snapshot', 'start-args']);
    expect(stderr).toContain('disk vd0 has no link');
    const words = (await execa('sh', ['-c', `printf '%s\\n' ${await at.text(['snapshot', 'start-args'])}`])).stdout;
    await at.start([], [...words.split('\n'), ...device]);
    const sizes = JSON.stringify(await at.vm.control.execute('query-block'));
    expect(sizes).toContain(`"virtual-size":${4 * MIB}`);
    await at.vm.write('vd0', 7, 64, 64);
    await at.vm.quit();
    expect(await holdsPattern(image('vd0.raw'), 'raw', 9, 4096, 64)).toBe(true);
    expect(await holdsPattern(image('vd0.raw'), 'raw', 7, 4096 + 64, 64)).toBe(true);
    await expectRest();
  });
});

needed('a set of an older version, of a disk that is part of a file', () => {
  test('leaves no link to the whole file when it is deleted', async () => {
    at = await CutHarness.start([], slice);
    await create('s1');
    const link = at.state('.images', 'vd0');
    expect(existsSync(link)).toBe(true);
    age('s1');
    await at.vm.quit();
    await tool('delete', 's1', '--yes');
    expect([existsSync(link), existsSync(`${link}.format`)]).toEqual([false, false]);
  });
});

needed('two disks that are parts of one file', () => {
  test('are left out, since neither could be merged back', async () => {
    at = await CutHarness.start([{ name: 'root0', format: 'raw' }], async (images) => {
      await qemuImg('create', '-q', '-f', 'raw', `${images}/vd0.raw`, '8M');
      return [0, 1].flatMap((part) => [
        '-blockdev',
        `driver=raw,node-name=node-p${part},offset=${part * 4 * MIB},size=${4 * MIB},file.driver=file,file.filename=${images}/vd0.raw,file.locking=off`,
        '-device',
        `virtio-blk-pci,id=p${part},drive=node-p${part},serial=p${part}`,
      ]);
    });
    const { disks, leftOut } = await create('s1');
    expect(disks.map(({ id }) => id)).toEqual(['root0']);
    expect(leftOut.map(({ reason }) => reason)).toEqual(
      ['p1', 'p0'].map((other) => `disk ${other} lies in the same file: its overlay could not be merged back`),
    );
    await tool('commit', 's1');
  });
});

needed('a disk over another backing file than its header names', () => {
  const start = async (): Promise<void> => {
    at = await CutHarness.start([], async (images) => {
      await qemuImg('create', '-q', '-f', 'raw', `${images}/low.raw`, '4M');
      await qemuIo(`${images}/low.raw`, 'raw', 'write -P 5 0 4M');
      await qemuImg('create', '-q', '-f', 'qcow2', `${images}/vd0.qcow2`, '4M');
      await qemuIo(`${images}/vd0.qcow2`, 'qcow2', 'write -P 6 1M 1M');
      const low = `driver=raw,node-name=low,read-only=on,file.driver=file,file.filename=${images}/low.raw`;
      const mid = `driver=qcow2,node-name=node-vd0,backing=low,file.driver=file,file.filename=${images}/vd0.qcow2`;
      return ['-blockdev', low, '-blockdev', mid, ...device];
    });
    await create('s1');
    await at.vm.write('vd0', 9, 0, 64);
  };
  const expectBytes = async (file: string, format = 'qcow2', first = 9): Promise<void> => {
    expect(await holdsPattern(file, format, first, 0, 64)).toBe(true);
    expect(await holdsPattern(file, format, 5, 64, 960)).toBe(true);
    expect(await holdsPattern(file, format, 6, 1024, 1024)).toBe(true);
  };

  test('is copied, reverted, and merged back with the VM shut off', async () => {
    await start();
    await expectBytes(await copied('s1'), 'raw', 5);
    await at.vm.quit();
    await expectBytes(at.overlay('vd0'));
    await tool('commit', 's1', '--offline', '--yes');
    const image0 = { driver: 'qcow2', file: { driver: 'file', filename: image('vd0.qcow2') } };
    const low = { driver: 'raw', file: { driver: 'file', filename: image('low.raw') } };
    const all = at.folder.path('all.raw');
    await qemuImg('convert', '-O', 'raw', `json:${JSON.stringify({ ...image0, backing: low })}`, all);
    await expectBytes(all, 'raw');
  });

  test('is reverted with the VM shut off', async () => {
    await start();
    await at.vm.quit();
    await tool('revert', 's1', '--yes');
    await expectBytes(at.overlay('vd0'), 'qcow2', 5);
  });

  test.each([true, false])('has an old set merged out of the way (running: %s)', async (isRunning) => {
    await start();
    const overlay = (await create('s2')).disks[0]?.overlay.file ?? '';
    if (!isRunning) await at.vm.quit();
    await tool('prune', '--keep', '1', '--yes');
    if (isRunning) await at.vm.quit();
    expect(await backingOf(overlay)).toBe(image('vd0.qcow2'));
    await expectBytes(overlay);
  });
});

needed('a disk with a data file by a relative name', () => {
  beforeEach(async () => {
    at = await CutHarness.start([], async (images) => {
      // QEMU takes it from its working directory, which is above.
      const words = ['create', '-q', '-f', 'qcow2', '-o', 'data_file=images/dat.raw', 'images/df.qcow2', '8M'];
      await execa('qemu-img', words, { cwd: dirname(images) });
      const node = `driver=qcow2,node-name=node-vd0,file.driver=file,file.filename=${images}/df.qcow2`;
      return ['-blockdev', node, ...device];
    });
    await at.vm.write('vd0', 3, 0, 64);
    expect((await create('s1')).disks[0]?.dataFiles).toEqual([image('dat.raw')]);
    await at.vm.write('vd0', 9, 0, 64);
  });

  test('is copied by a tool that is run elsewhere', async () => {
    expect(await holdsPattern(await copied('s1'), 'raw', 3, 0, 64)).toBe(true);
  });

  test('has an old set merged out of the way, and the last merged back, by a tool that is run elsewhere', async () => {
    await create('s2');
    await at.vm.quit();
    await tool('prune', '--keep', '1', '--yes');
    await tool('commit', 's2', '--offline', '--yes');
    expect(at.images()).toEqual(['dat.raw', 'df.qcow2']);
    expect(await holdsPattern(image('dat.raw'), 'raw', 9, 0, 64)).toBe(true);
  });
});

needed('a disk over an image on the network', () => {
  test('is merged back with the VM shut off, as its header says', async () => {
    const servers: { kill: () => boolean }[] = [];
    at = await CutHarness.start([], async (images) => {
      await qemuImg('create', '-q', '-f', 'raw', `${images}/low.raw`, '4M');
      await qemuIo(`${images}/low.raw`, 'raw', 'write -P 5 0 4M');
      const socket = join(dirname(images), 'nbd.sock');
      servers.push(
        execa('qemu-nbd', ['-t', '-r', '-e', '8', '-k', socket, '-f', 'raw', `${images}/low.raw`], { reject: false }),
      );
      await expect.poll(() => existsSync(socket)).toBe(true);
      const below = ['-b', `nbd+unix:///?socket=${socket}`, '-F', 'raw'];
      await qemuImg('create', '-q', '-f', 'qcow2', ...below, `${images}/vd0.qcow2`, '4M');
      const node = `driver=qcow2,node-name=node-vd0,file.driver=file,file.filename=${images}/vd0.qcow2`;
      return ['-blockdev', node, ...device];
    });
    try {
      await create('s1');
      await at.vm.write('vd0', 9, 0, 64);
      await at.vm.quit();
      await tool('commit', 's1', '--offline', '--yes');
      expect(await holdsPattern(image('vd0.qcow2'), 'qcow2', 9, 0, 64)).toBe(true);
      expect(await holdsPattern(image('vd0.qcow2'), 'qcow2', 5, 64, 64)).toBe(true);
    } finally {
      for (const server of servers) server.kill();
    }
  });
});
