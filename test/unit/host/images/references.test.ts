// What a header of qemu-img's own making names.
import { writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { ownDataFiles } from '../../../../src/host/images/data-files.js';
import { backingOf, referencesOf } from '../../../../src/host/images/references.js';
import { scratch } from '../../../support/scratch.js';
import { requires } from '../../../support/requires.js';

requires('qemu-img')('a header', () => {
  const json = (options: object): string => `json:${JSON.stringify(options)}`;
  const nested = (filename: string): object => ({ driver: 'file', filename });

  test.each<[string, string, string | undefined]>([
    ['a path', 'base.raw', '{}/base.raw'],
    ['a path with a protocol', 'file:/img/base.raw', '/img/base.raw'],
    [
      'another layer below it, which is named first',
      json({
        backing: { driver: 'raw', file: nested('/img/low.raw') },
        driver: 'qcow2',
        file: nested('/img/mid.qcow2'),
      }),
      '/img/mid.qcow2',
    ],
    [
      'another layer below it, with dots',
      json({
        'backing.driver': 'raw',
        'backing.file.filename': '/l',
        driver: 'qcow2',
        'file.driver': 'file',
        'file.filename': '/m',
      }),
      '/m',
    ],
    [
      'part of a file, in the words of libvirt',
      json({ file: { driver: 'raw', offset: 512, file: nested('/img/a') } }),
      '/img/a',
    ],
    ['no driver', json({ 'file.driver': 'file', 'file.filename': '/img/a' }), '/img/a'],
    ['no one file', json({ driver: 'quorum', children: [nested('/a'), nested('/b')] }), undefined],
  ])('that names %s: its backing file', async (_what, name, expected) => {
    using folder = scratch();
    const file = folder.path('top.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', name, '-F', 'raw', file, '1M']);
    expect((await referencesOf(file)).backingName).toBe(name);
    expect(await backingOf(file)).toBe(expected?.replace('{}', folder.dir));
  });
});

test('a data file that is named far behind the start of a large first cluster is found', async () => {
  using folder = scratch();
  const header = Buffer.alloc(2 ** 21);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(21, 20);
  header.writeUInt32BE(104, 100);
  // An extension that nobody knows, and is longer than all that QEMU itself writes.
  header.writeUInt32BE(0x12345678, 104);
  header.writeUInt32BE(100_000, 108);
  header.writeUInt32BE(0x44415441, 112 + 100_000);
  header.writeUInt32BE('/etc/shadow'.length, 116 + 100_000);
  header.write('/etc/shadow', 120 + 100_000);
  writeFileSync(folder.path('crafted.qcow2'), header);
  expect((await referencesOf(folder.path('crafted.qcow2'))).dataFiles).toEqual(['/etc/shadow']);
});

requires('qemu-img')('a data file', () => {
  test('that is named by a relative path is told apart, and refused wherever it is in the chain', async () => {
    using folder = scratch();
    const [low, top] = [folder.path('low.qcow2'), folder.path('top.qcow2')];
    const create = async (...words: string[]) =>
      await execa('qemu-img', ['create', '-q', '-f', 'qcow2', ...words], { cwd: folder.dir });
    await create('-o', 'data_file=low.raw,data_file_raw=on', low, '1M');
    await create('-b', low, '-F', 'qcow2', top);
    expect(await referencesOf(low)).toMatchObject({
      dataFiles: [folder.path('low.raw')],
      relativeData: ['low.raw'],
      isDataRaw: true,
    });
    expect(await referencesOf(top)).toMatchObject({ backingFormat: 'qcow2', dataFiles: [], isDataRaw: false });
    const refusal = `${low} has its data in low.raw, a relative path`;
    for (const file of [low, top]) await expect(ownDataFiles({ file, format: 'qcow2' })).rejects.toThrow(refusal);
    // What a guest may have written to a raw image is no header.
    expect(await ownDataFiles({ file: low, format: 'raw' })).toEqual([]);
    const whole = ['amend', '-f', 'qcow2', '-o', `data_file=${folder.path('low.raw')}`, low];
    await execa('qemu-img', whole, { cwd: folder.dir });
    expect(await ownDataFiles({ file: low, format: 'qcow2' })).toEqual([folder.path('low.raw')]);
    expect(await ownDataFiles({ file: top, format: 'qcow2' })).toEqual([]);
  });
});
