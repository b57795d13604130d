// The words in which guest and host speak of a session.
import * as v from 'valibot';
import { expect, test } from 'vitest';
import { freezeReportSchema, levelAskedFor } from '../../src/consistency.js';
import { filesystemReport, freezeReport, writerReport } from '../support/freeze-reports.js';

test('reads words that a newer guest has and we do not, as those that promise least', () => {
  const newer = {
    ...freezeReport({}),
    level: 'transactional',
    outcome: 'postponed',
    filesystems: [{ ...filesystemReport('/', 'root0'), held: 'snapshotted' }],
    writers: [
      {
        ...writerReport('10-db', {}),
        kind: 'remote',
        guarantee: 'replicated',
        verdict: 'witnessed',
        phases: [{ phase: 'drain', startMs: 0, endMs: 1, timedOut: false }],
      },
    ],
    steps: [{ step: 'drain', startMs: 0, endMs: 1 }],
  };
  expect(v.parse(freezeReportSchema, newer)).toMatchObject({
    level: 'none',
    outcome: 'broken',
    filesystems: [{ held: 'none' }],
    writers: [{ kind: 'plain', guarantee: undefined, verdict: 'failed', phases: [{ phase: 'post' }] }],
    steps: [{ step: 'drain' }],
  });
});

test('does not take a number for a word', () => {
  expect(v.safeParse(freezeReportSchema, { ...freezeReport({}), level: 3 }).success).toBe(false);
});

test('auto asks for what the writers concerned can give', () => {
  expect([levelAskedFor('auto', true), levelAskedFor('auto', false)]).toEqual(['application', 'filesystem']);
  expect([levelAskedFor('crash', true), levelAskedFor('application', false)]).toEqual(['crash', 'application']);
});
