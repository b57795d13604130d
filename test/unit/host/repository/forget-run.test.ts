// Which runs may be removed: none that a wanted one lies on, at whatever distance.
import { expect, test } from 'vitest';
import { dependents, removable } from '../../../../src/host/repository/forget-run.js';
import type { RunManifest } from '../../../../src/host/repository/run-manifest.js';
import { runNumbered, runOf } from '../../../support/runs.js';

const numbers = (...wanted: readonly number[]): string[] => wanted.map(runNumbered);
const runs = (all: readonly RunManifest[], forgotten: readonly number[], unreadable: readonly string[] = []) => ({
  all,
  forgotten: new Set(forgotten.map(runNumbered)),
  unreadable: unreadable.map((run) => ({ run, reason: '' })),
});
/** Two chains: 1-2-4 and 3-5, and 6 on 2. */
const all = [runOf(1), runOf(2, 1), runOf(3), runOf(4, 2), runOf(5, 3), runOf(6, 2)];

test.each([
  [[], []],
  [[1], []],
  [[4], [4]],
  [[1, 2, 4], [4]],
  [
    [1, 2, 4, 6],
    [1, 2, 4, 6],
  ],
  [
    [3, 5],
    [3, 5],
  ],
  [[2, 3, 6], [6]],
])('of the forgotten %j may be removed %j', (forgotten, expected) => {
  expect(removable(runs(all, forgotten))).toEqual(numbers(...expected));
});

test('nothing may be removed while a run cannot be read', () => {
  expect(removable(runs(all, [3, 5], ['20260101T000007Z-00000007']))).toEqual([]);
});

test('tells the wanted runs that lie on one', () => {
  expect(dependents(runs(all, []), runNumbered(1))).toEqual(numbers(2, 4, 6));
  expect(dependents(runs(all, [4]), runNumbered(2))).toEqual(numbers(6));
  expect(dependents(runs(all, []), runNumbered(5))).toEqual([]);
});
