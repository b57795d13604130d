// The space of a repository that is written to, also one that answers nobody.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { SpaceWatch, freeBytes } from '../../../../src/host/backup/space-watch.js';

test('tells when there is too little', async () => {
  let free = 100;
  const watch = new SpaceWatch('/repo', 100, () => Promise.resolve(free));
  watch.check();
  await sleep(1);
  free = 99;
  watch.check();
  await sleep(1);
  expect(() => {
    watch.check();
  }).toThrow('the repository in /repo runs full: 99 bytes are free');
});

test('tells that nobody knows', async () => {
  const watch = new SpaceWatch('/repo', 0, () => Promise.reject(new Error('EIO')));
  watch.check();
  await sleep(1);
  expect(() => {
    watch.check();
  }).toThrow('how much space is left in /repo');
});

test('does not wait for a filesystem that hangs, and asks it once', async () => {
  let asked = 0;
  const hanging = (): Promise<number> => {
    asked++;
    return new Promise(() => undefined);
  };
  const watch = new SpaceWatch('/repo', 1, hanging);
  for (let count = 0; count < 3; count++) {
    watch.check();
    await sleep(1);
  }
  expect(asked).toBe(1);
});

test('asks the filesystem', async () => {
  expect(await freeBytes('/')).toBeGreaterThan(0);
});
