// A file that is written where none is yet.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { takePlace } from '../../../../src/host/repository/take-place.js';
import { scratch } from '../../../support/scratch.js';

test('leaves what is there as it is', async () => {
  using folder = scratch();
  expect(await takePlace(folder.path('a'), 'first')).toBe(true);
  expect(await takePlace(folder.path('a'), 'second')).toBe(false);
  expect(readFileSync(folder.path('a'), 'utf8')).toBe('first');
  expect(readdirSync(folder.dir)).toEqual(['a']);
});

test.each(['EPERM', 'ENOTSUP'])('says what it needs where link(2) gives %s, as on vfat', async (code) => {
  using folder = scratch();
  const refused = (): Promise<void> => Promise.reject(Object.assign(new Error(`${code}: refused, link`), { code }));
  await expect(takePlace(folder.path('a'), 'text', refused)).rejects.toMatchObject({
    code: 'E_REPOSITORY',
    message: `expected a filesystem with hard links, found one that refuses them (${code})`,
  });
  expect(readdirSync(folder.dir)).toEqual([]);
});

test('passes on any other failure', async () => {
  using folder = scratch();
  writeFileSync(folder.path('file'), '');
  await expect(takePlace(folder.path('file/a'), 'text')).rejects.toMatchObject({ code: 'E_WRITE' });
});
