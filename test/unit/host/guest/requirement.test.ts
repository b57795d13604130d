// What `auto` means for a guest, and what may be cut below it.
import { expect, test } from 'vitest';
import { checkReached, requiredLevel } from '../../../../src/host/guest/requirement.js';
import { freezeReport, writerReport } from '../../../support/freeze-reports.js';

test.each([
  ['no writers', freezeReport(), 'filesystem'],
  ['a writer', freezeReport({ writers: [writerReport('db')] }), 'application'],
  [
    'writers that do not apply',
    freezeReport({ writers: [writerReport('db', { verdict: 'not-applicable' })] }),
    'filesystem',
  ],
  ['only unsafe writers', freezeReport({ unsafeWriters: [{ what: '/w', reason: 'writable' }] }), 'application'],
  ['an unknown guest', undefined, 'filesystem'],
] as const)('auto with %s', (_what, report, level) => {
  expect(requiredLevel('auto', report)).toBe(level);
});

test('refuses what is below, unless lower is allowed', () => {
  const check = (allowLower: boolean) => () => {
    checkReached({ asked: 'auto', allowLower }, 'crash', undefined, 'why');
  };
  expect(check(false)).toThrow('why');
  expect(check(true)).not.toThrow();
});
