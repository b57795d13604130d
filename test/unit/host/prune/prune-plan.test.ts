import { describe, expect, test } from 'vitest';
import { planPrune } from '../../../../src/host/prune/prune-plan.js';
import type { Manifest } from '../../../../src/host/sets/manifest.js';
import { manifest } from '../../../support/manifests.js';

const DAY_MS = 86_400_000;
const nowMs = Date.parse('2026-01-10T00:00:00Z');
const day = (count: number, members: Partial<Manifest> = {}): Manifest => ({
  ...manifest(`s${count}`, `2026-01-0${count}T00:00:00Z`),
  ...members,
});
const names = (choice: Parameters<typeof planPrune>[1], ...manifests: Manifest[]): string[][] => {
  const { merge, forget, keep } = planPrune(manifests, choice);
  return [merge, forget, keep].map((sets) => sets.map(({ set }) => set));
};

describe('a prune', () => {
  test('merges all but the newest, oldest first', () => {
    expect(names({ keep: 2, nowMs }, day(1), day(2), day(3), day(4))).toEqual([['s1', 's2'], [], ['s3', 's4']]);
    expect(names({ keep: 9, nowMs }, day(1), day(2))).toEqual([[], [], ['s1', 's2']]);
  });

  test('spares what is not old enough', () => {
    const choice = { keep: 1, olderThanMs: 8.5 * DAY_MS, nowMs };
    expect(names(choice, day(1), day(2), day(3))).toEqual([['s1'], [], ['s2', 's3']]);
    expect(names(choice, day(1, { state: 'committed' }), day(2, { state: 'failed' }), day(3))).toEqual([
      [],
      ['s1'],
      ['s3'],
    ]);
  });

  test('forgets what holds nothing, and does not count it among those kept', () => {
    const plan = names({ keep: 1, nowMs }, day(1), day(2, { state: 'committed' }), day(3), day(4, { state: 'failed' }));
    expect(plan).toEqual([['s1'], ['s2', 's4'], ['s3']]);
  });

  test('ends first what another prune began, whatever is to be kept', () => {
    const begun = day(1, { state: 'committing', pruning: true });
    expect(names({ keep: 9, nowMs }, begun, day(2), day(3))).toEqual([['s1'], [], ['s2', 's3']]);
  });

  test.each(['creating', 'cutting', 'committing', 'reverting', 'deleting'] as const)(
    'refuses beside a set that is %s',
    (state) => {
      expect(() => planPrune([day(1), day(2, { state }), day(3)], { keep: 1, nowMs })).toThrow(`s2 is ${state}`);
    },
  );
});
