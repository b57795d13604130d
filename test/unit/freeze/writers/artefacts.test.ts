// What writers left for whoever keeps the snapshot: regular files, of bounded length and number, whatever else lies there.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { readArtefacts } from '../../../../src/freeze/writers/artefacts.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});

const KIB = 1024;
const read = (...writers: readonly string[]) =>
  readArtefacts(writers.map((name) => ({ name, dir: folder.path(name) })));

function leave(writer: string, name: string, content: string | Buffer): void {
  mkdirSync(folder.path(`${writer}/artefacts`), { recursive: true });
  writeFileSync(folder.path(`${writer}/artefacts/${name}`), content);
}

test('text as text, anything else as base64, by writer and name', () => {
  leave('pg', 'backup_label', 'START WAL LOCATION: 0/2000028\n\u00fc');
  leave('pg', 'a.bin', Buffer.from([0, 255, 1]));
  leave('my', 'empty', '');
  mkdirSync(folder.path('none'));
  expect(read('pg', 'none', 'absent', 'my')).toEqual([
    { writer: 'pg', name: 'a.bin', base64: 'AP8B', size: 3 },
    { writer: 'pg', name: 'backup_label', text: 'START WAL LOCATION: 0/2000028\n\u00fc', size: 32 },
    { writer: 'my', name: 'empty', text: '', size: 0 },
  ]);
});

test('what has control characters is no text, whichever byte they begin with', () => {
  leave('w', 'csi', '\u009b31mred');
  leave('w', '\u009b31mred', 'no');
  leave('w', 'table', 'a\tb\r\n');
  expect(read('w').map(({ name, text }) => [name, text])).toEqual([
    ['csi', undefined],
    ['table', 'a\tb\r\n'],
  ]);
});

test('each is cut at 64 KiB, all together at 256 KiB, and that is said', () => {
  for (const name of ['1', '2', '3', '4', '5']) leave('w', name, 'x'.repeat(64 * KIB + 1));
  const found = read('w');
  expect(found.map(({ text = '' }) => text.length)).toEqual([64 * KIB, 64 * KIB, 64 * KIB, 64 * KIB, 0]);
  expect(found.every(({ truncated, size }) => truncated === true && size === 64 * KIB + 1)).toBe(true);
});

test('one of exactly 64 KiB is whole', () => {
  leave('w', 'whole', 'x'.repeat(64 * KIB));
  expect(read('w')[0]).not.toHaveProperty('truncated');
});

test('links, pipes, folders and names that steer a terminal are passed over, and none of them blocks', () => {
  leave('w', 'good', 'yes');
  leave('w', '\u001b[31mred', 'no');
  symlinkSync('/etc/passwd', folder.path('w/artefacts/link'));
  mkdirSync(folder.path('w/artefacts/folder'));
  expect(spawnSync('mkfifo', [folder.path('w/artefacts/pipe')]).status).toBe(0);
  expect(read('w').map(({ name }) => name)).toEqual(['good']);
});

test('a folder that is a link is not followed', () => {
  leave('elsewhere', 'secret', 'no');
  mkdirSync(folder.path('w'));
  symlinkSync(folder.path('elsewhere/artefacts'), folder.path('w/artefacts'));
  expect(read('w')).toEqual([]);
});

test('no more than 64 files', () => {
  for (let index = 0; index < 70; index++) leave('w', String(index), '');
  expect(read('w')).toHaveLength(64);
});
