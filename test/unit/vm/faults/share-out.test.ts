// How runs are shared out among guests, without any guest: a keeper makes none before it is asked for one.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { shareOut, type Task } from '../../../torture/share-out.js';
import { describeWorst, worstOf } from '../../../torture/worst.js';

const task = (kind: Task['kind'], act: Task['act']): Task => ({ kind, act });

test('each task is done once, by a keeper of its kind, and no more at a time than was said', async () => {
  const done: string[] = [];
  const keepers = new Set<unknown>();
  let now = 0;
  let most = 0;
  const tasks = Array.from({ length: 9 }, (_, index) =>
    task('user-mode', async (keeper) => {
      most = Math.max(most, ++now);
      keepers.add(keeper);
      expect(keeper.kind).toBe('user-mode');
      await sleep(2);
      done.push(`user-mode ${index}`);
      now--;
    }),
  );
  const inQemu = task('qemu', async (keeper) => {
    expect(keeper.kind).toBe('qemu');
    await sleep(1);
    done.push('qemu');
  });
  await shareOut([...tasks, inQemu], 3);
  expect(most).toBe(3);
  expect(keepers.size).toBe(3);
  expect(done.sort()).toEqual(['qemu', ...tasks.map((_, index) => `user-mode ${index}`)].sort());
});

test('a task that throws does not stop the other guests, and is told at the end', async () => {
  let others = 0;
  const fails = task('qemu', async () => {
    await Promise.resolve();
    throw new Error('no guest');
  });
  const works = task('user-mode', async () => {
    await sleep(1);
    others++;
  });
  await expect(shareOut([fails, works, works], 1)).rejects.toThrow('no guest');
  expect(others).toBe(2);
});

test('the worst figures, and whose they are', () => {
  const results = [
    { name: 'one', backMs: -300, releaseMs: undefined },
    { name: 'two', backMs: 120, releaseMs: 40 },
    { name: 'three', backMs: undefined, releaseMs: 90 },
  ];
  expect(worstOf(results)).toEqual({ backMs: 120, releaseMs: 90 });
  expect(describeWorst(results, ({ name }) => name)).toBe(
    'worst return of a filesystem: 120 ms (two); worst release of a writer: 90 ms (three)',
  );
  expect(describeWorst([], () => '')).toContain('not measured');
});
