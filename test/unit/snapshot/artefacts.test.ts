import { existsSync, readFileSync, statSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { keepArtefacts } from '../../../src/snapshot/artefacts.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});

test('each is a file of root alone, as it was written; half of one is called so', () => {
  const kept = keepArtefacts(folder.dir, [
    { writer: '50-a', name: 'label', text: 'x\n', size: 2 },
    { writer: '60-b', name: 'bytes', base64: '/wA=', size: 2 },
    { writer: '60-b', name: 'long', text: 'half', size: 70_000, truncated: true },
  ]);
  expect(kept).toBe(folder.path('artefacts'));
  expect(readFileSync(folder.path('artefacts/50-a/label'), 'utf8')).toBe('x\n');
  expect([...readFileSync(folder.path('artefacts/60-b/bytes'))]).toEqual([255, 0]);
  expect(readFileSync(folder.path('artefacts/60-b/long.truncated'), 'utf8')).toBe('half');
  expect(existsSync(folder.path('artefacts/60-b/long'))).toBe(false);
  expect(statSync(folder.path('artefacts/50-a/label')).mode & 0o777).toBe(0o600);
});

test('without any there is no folder', () => {
  expect(keepArtefacts(folder.dir)).toBeUndefined();
  expect(keepArtefacts(folder.dir, [])).toBeUndefined();
  expect(existsSync(folder.path('artefacts'))).toBe(false);
});

test.each([
  ['..', 'x'],
  ['a/b', 'x'],
  ['a', '../x'],
  ['a', ''],
])('a name that leads elsewhere is refused: %j, %j', (writer, name) => {
  expect(() => keepArtefacts(folder.dir, [{ writer, name, text: '', size: 0 }])).toThrow('one component of a path');
});
