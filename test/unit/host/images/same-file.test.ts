import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { resolvedPath, sameFile } from '../../../../src/host/images/same-file.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
  mkdirSync(folder.path('real'));
  symlinkSync(folder.path('real'), folder.path('link'));
  writeFileSync(folder.path('real/a'), '');
  writeFileSync(folder.path('real/b'), '');
  symlinkSync('a', folder.path('real/to-a'));
  linkSync(folder.path('real/a'), folder.path('real/also-a'));
});
afterEach(() => {
  folder[Symbol.dispose]();
});

test.each([
  ['real/a', true],
  ['link/a', true],
  ['real/to-a', true],
  ['real/also-a', true],
  ['real/../link/./a', true],
  ['real/b', false],
  ['real/none', false],
])('%s is real/a: %s', async (name, same) => {
  expect(await sameFile(`${folder.dir}/${name}`, folder.path('real/a'))).toBe(same);
});

test('two names of a file that is not there are one file if they lead to one place', async () => {
  expect(await sameFile(folder.path('link/none'), folder.path('real/none'))).toBe(true);
  expect(await sameFile(folder.path('link/none'), folder.path('real/other'))).toBe(false);
});

test('a link to what is not there leads where it will be', async () => {
  symlinkSync('../link/gone.sock', folder.path('real/sock'));
  expect(await resolvedPath(folder.path('link/sock'))).toBe(folder.path('real/gone.sock'));
  symlinkSync('loop', folder.path('loop'));
  expect(await resolvedPath(folder.path('loop'))).toBe(folder.path('loop'));
});
