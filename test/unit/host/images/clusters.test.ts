// Images of qemu-img's own making, some of which it reads only with a key.
import { execa } from 'execa';
import { truncateSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { hasClusters } from '../../../../src/host/images/clusters.js';
import { LUKS_OBJECT, makeLuks } from '../../../support/luks.js';
import { requires } from '../../../support/requires.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});

requires('qemu-img', 'qemu-io')('hasClusters', () => {
  const io = async (file: string, command: string): Promise<void> => {
    await execa('qemu-io', ['-f', 'qcow2', '-c', command, file]);
  };

  test.each(['compat=0.10', 'cluster_size=512', 'extended_l2=on', 'compat=1.1'])(
    'tells an empty image from one that was written to (%s)',
    async (option) => {
      const file = folder.path('a.qcow2');
      await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', option, file, '4G']);
      expect(await hasClusters(file)).toBe(false);
      await io(file, 'write -P 1 3G 512');
      expect(await hasClusters(file)).toBe(true);
    },
  );

  test('counts a discard over a base, which hides what is below', async () => {
    const file = folder.path('a.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'raw', folder.path('base.raw'), '1M']);
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', file]);
    expect(await hasClusters(file)).toBe(false);
    await io(file, 'discard 0 64k');
    expect(await hasClusters(file)).toBe(true);
  });

  test('needs no key', async () => {
    const file = folder.path('a.qcow2');
    await makeLuks(file);
    expect(await hasClusters(file)).toBe(false);
    const image = `driver=qcow2,encrypt.key-secret=s0,file.filename=${file}`;
    await execa('qemu-io', ['--object', LUKS_OBJECT, '--image-opts', '-c', 'write 0 64k', image]);
    expect(await hasClusters(file)).toBe(true);
  });

  test('says of no qcow2 image, and of one that is cut short, that it is none', async () => {
    const file = folder.path('a');
    writeFileSync(file, Buffer.alloc(4096));
    await expect(hasClusters(file)).rejects.toThrow(`${file} is no qcow2 image`);
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', file, '1M']);
    await io(file, 'write 0 64k');
    truncateSync(file, 262_144);
    await expect(hasClusters(file)).rejects.toThrow('is no whole qcow2 image: 65536 bytes expected at 262144');
  });
});
