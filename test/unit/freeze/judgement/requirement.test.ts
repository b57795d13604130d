// What a request demands, and of whose failure it dies.
import { expect, test } from 'vitest';
import { levelNeeded, vetoes, type HookFailure } from '../../../../src/freeze/judgement/requirement.js';

test('what a request requires', () => {
  expect(levelNeeded('auto', true)).toBe('application');
  expect(levelNeeded('auto', false)).toBe('filesystem');
  expect(levelNeeded('plain', true)).toBeUndefined();
  expect(levelNeeded('crash', true)).toBe('crash');
  const asked = ['auto', 'application', 'plain', 'filesystem', 'crash', 'none'] as const;
  const vetoing = (writer: { required: boolean; shipped: boolean }, hookFailure: HookFailure): readonly string[] =>
    asked.filter((require) => vetoes(writer, require, hookFailure));
  expect(vetoing({ required: true, shipped: false }, 'refuse')).toEqual(['auto', 'application', 'plain']);
  expect(vetoing({ required: true, shipped: false }, 'lower')).toEqual(['auto', 'application']);
  expect(vetoing({ required: true, shipped: true }, 'refuse')).toEqual(['auto', 'application']);
  expect(vetoing({ required: false, shipped: false }, 'refuse')).toEqual([]);
});
