// A repository is made once: whoever comes second works with what is there.
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { makeRepository, openIfThere, openRepository } from '../../../../src/host/repository/repository.js';
import { scratch } from '../../../support/scratch.js';

test('one that another tool has made since stays what it is', async () => {
  using folder = scratch();
  const [first, second] = await Promise.all([openIfThere(folder.dir), openIfThere(folder.dir)]);
  expect([first, second]).toEqual([undefined, undefined]);
  const made = await makeRepository(folder.dir);
  const text = readFileSync(folder.path('repository.json'), 'utf8');
  expect(await makeRepository(folder.dir)).toEqual(made);
  expect(readFileSync(folder.path('repository.json'), 'utf8')).toBe(text);
});

test('ten that make it at once have one, and leave nothing else', async () => {
  using folder = scratch();
  const path = folder.path('new');
  const made = await Promise.all(Array.from({ length: 10 }, () => makeRepository(path)));
  const there = await openRepository(path);
  expect(made).toEqual(made.map(() => there));
  expect(readdirSync(path).sort()).toEqual(['locks', 'repository.json']);
});
