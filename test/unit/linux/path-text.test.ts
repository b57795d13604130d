// Names that are not UTF-8, as text and back to bytes.
import { expect, test } from 'vitest';
import { freezerText, freezerWord } from '../../../src/freeze/freezer/lines.js';
import { decodeOctal, isUtf8Path, pathBytes, pathText, tellablePath } from '../../../src/linux/path-text.js';
import { encode } from '../../../src/wire/encode.js';
import { tableOf } from '../../support/mount-table.js';

test('text that is UTF-8 stays as it is', () => {
  for (const text of ['/', '/srv/données', '/\u{1F600}', '/\ufffd']) {
    expect(pathText(Buffer.from(text))).toBe(text);
    expect(pathBytes(text)).toEqual(Buffer.from(text));
    expect([isUtf8Path(text), tellablePath(text)]).toEqual([true, text]);
  }
});

test('every byte comes back, and no two names are told apart as bytes and not as text', () => {
  const names = new Set<string>();
  for (let a = 1; a < 256; a++) {
    for (const rest of [[], [0x80], [0xa9], [0xff], [0x41], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf0, 0x9f, 0x98]]) {
      const bytes = Buffer.from([0x2f, a, ...rest]);
      names.add(pathText(bytes));
      expect(pathBytes(pathText(bytes))).toEqual(bytes);
    }
  }
  expect(names.size).toBe(255 * 8);
});

test('a mount point in latin1 goes to the freezer byte for byte', () => {
  const line = Buffer.from(
    '20 1 8:1 / / rw - ext4 /dev/sda1 rw\n21 20 8:2 / /caf\xe9\\040x rw - xfs /dev/sda2 rw\n',
    'latin1',
  );
  const table = tableOf(line);
  const mountpoint = table.filesystems[1]?.mountpoint ?? '';
  expect(pathBytes(mountpoint)).toEqual(Buffer.from('/caf\xe9 x', 'latin1'));
  expect(freezerWord(mountpoint)).toBe('/caf\\351\\040x');
  expect(freezerText(freezerWord(mountpoint))).toBe(mountpoint);
  expect(table.filesystemOf(`${mountpoint}/file`)?.device).toBe('8:2');
});

test('JSON tells U+FFFD in its place, as qemu-ga does', () => {
  expect(encode(pathText(Buffer.from('/caf\xe9', 'latin1')))).toBe('"/caf\\uFFFD"');
  expect(tellablePath(pathText(Buffer.from('/caf\xe9', 'latin1')))).toBe('/caf\ufffd');
});

test('a raw byte beyond ASCII stays what it is', () => {
  expect(decodeOctal(Buffer.from('/é\\040x').toString('latin1'))).toBe('/é x');
  expect(decodeOctal('\\999')).toBe('\\999');
});
