// What a header of qemu-img's own making names.
import { execa } from 'execa';
import { expect, test } from 'vitest';
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
