// A freeze report for tests that care about a few of its members.
import type { FreezeReport } from '../../../src/consistency.js';

export function freezeReport(members: Partial<FreezeReport> = {}): FreezeReport {
  return {
    session: 's1',
    requester: 'test',
    state: 'frozen',
    outcome: 'ok',
    level: 'application',
    evidence: ['proved'],
    filesystems: [],
    writers: [],
    skipped: [],
    steps: [{ step: 'freeze', startMs: 1.25, endMs: 2 }],
    leaseMs: 10_000,
    pauseWindowMs: 0,
    frozenWindowMs: 0,
    ...members,
  };
}
