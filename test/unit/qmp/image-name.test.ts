import { describe, expect, test } from 'vitest';
import { imageFile, parseImageName, type ImageName } from '../../../src/qmp/image-name.js';

const json = (options: object): string => `json:${JSON.stringify(options)}`;
const file = { driver: 'file', filename: '/img/a b' };

describe('parseImageName', () => {
  test.each<[string, string, Partial<ImageName>]>([
    ['a path', '/img/a.raw', { file: '/img/a.raw', driver: 'file', options: [] }],
    ['a relative path with a colon', './a:b', { file: './a:b', options: [] }],
    ['a network', 'nbd+unix:///x?socket=/s', { file: undefined, driver: 'nbd' }],
    ['a pool', 'rbd:pool/x', { file: undefined, driver: 'rbd' }],
    ['a format on a file', json({ driver: 'qcow2', file }), { file: '/img/a b', driver: 'file', options: [] }],
    [
      'a part of a file',
      json({ driver: 'raw', offset: 512, size: 1024, file }),
      { file: '/img/a b', options: ['offset', 'size'] },
    ],
    [
      'a part of a file, in the words of libvirt',
      json({ file: { driver: 'raw', offset: 512, size: 1024, file } }),
      { file: '/img/a b', options: ['offset', 'size'] },
    ],
    [
      'options with dots',
      json({ driver: 'raw', offset: 512, 'file.driver': 'file', 'file.filename': '/img/a b' }),
      { file: '/img/a b', driver: 'file', options: ['offset'] },
    ],
    [
      'a key',
      json({ driver: 'qcow2', 'encrypt.key-secret': 's0', file }),
      { file: '/img/a b', options: ['encrypt.key-secret'], keySecret: 's0' },
    ],
    ['a nested key', json({ driver: 'qcow2', encrypt: { 'key-secret': 's0' }, file }), { keySecret: 's0' }],
    ['no backing file', json({ driver: 'qcow2', backing: null, file }), { options: ['backing'], backing: null }],
    [
      'another backing file',
      json({ driver: 'qcow2', backing: { driver: 'raw', file }, file }),
      { backing: json({ driver: 'raw', file }) },
    ],
    [
      'options of the file',
      json({ driver: 'raw', file: { ...file, locking: 'off' } }),
      { file: '/img/a b', options: ['locking'] },
    ],
    [
      'a network below a format',
      json({ driver: 'raw', file: { driver: 'nbd', host: 'h' } }),
      { file: undefined, driver: 'nbd' },
    ],
    [
      'a filter below a format',
      json({ driver: 'qcow2', file: { driver: 'throttle', file } }),
      { file: undefined, driver: 'throttle' },
    ],
    ['several images in one', json({ driver: 'quorum', children: [] }), { file: undefined, driver: 'quorum' }],
    ['a name that QEMU cut', 'json:{"driver":"qcow2","file":{"dr...', { file: undefined, driver: undefined }],
  ])('reads %s', (_what, name, expected) => {
    expect(parseImageName(name)).toMatchObject(expected);
  });
});

describe('imageFile', () => {
  test('is the file, or the name where there is no one file', () => {
    expect(imageFile(json({ driver: 'raw', offset: 512, file }))).toBe('/img/a b');
    expect(imageFile('nbd://host/x')).toBe('nbd://host/x');
  });
});
