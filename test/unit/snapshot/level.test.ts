import { describe, expect, test } from 'vitest';
import { judgeSet } from '../../../src/snapshot/level.js';
import { freezeReport, writerReport } from '../../support/freeze-reports.js';

const application = { level: 'application' } as const;
const left = { level: 'crash', levelWithProvider: 'application' } as const;

describe('volumes that were cut under one freeze', () => {
  test('are worth what the session is', () => {
    expect(judgeSet([{ way: 'atomic' }, { way: 'atomic' }], freezeReport(application))).toMatchObject({
      level: 'application',
      sources: ['application', 'application'],
    });
  });

  test('are worth nothing together if the hold did not last: some may have been cut after it', () => {
    const report = freezeReport({ level: 'crash', outcome: 'expired' });
    expect(judgeSet([{ way: 'atomic' }, { way: 'atomic' }], report)).toMatchObject({
      level: 'none',
      sources: ['crash', 'crash'],
    });
    expect(judgeSet([{ way: 'atomic' }], report)).toMatchObject({ level: 'crash' });
  });
});

describe('a part of a filesystem', () => {
  const judging = [{ way: 'atomic', partOf: '/' }, { way: 'atomic' }] as const;

  test('is no application: what it needs may lie beside', () => {
    const report = freezeReport({ ...application, writers: [writerReport('50-postgresql')] });
    expect(judgeSet(judging, report)).toMatchObject({
      level: 'filesystem',
      sources: ['filesystem', 'application'],
      evidence: [
        expect.anything(),
        'of / only a part is shown: what an application has elsewhere on it was not cut with it',
      ],
    });
  });

  test('is nothing to tell where no writer speaks for an application', () => {
    const writers = [writerReport('other', { verdict: 'not-applicable' })];
    const report = freezeReport({ level: 'filesystem', writers });
    expect(judgeSet(judging, report)).toMatchObject({ level: 'filesystem', evidence: [expect.anything()] });
  });

  test('is worth no more than it was held', () => {
    const report = freezeReport({ level: 'crash', outcome: 'expired', writers: [writerReport('50-postgresql')] });
    expect(judgeSet([{ way: 'atomic', partOf: '/' }], report)).toMatchObject({ level: 'crash', sources: ['crash'] });
  });
});

test('what is in memory makes the others worth no less, and what is bound does', () => {
  const report = freezeReport(application);
  expect(judgeSet([{ way: 'atomic' }, { way: 'live' }], report)).toMatchObject({
    level: 'application',
    sources: ['application', 'none'],
  });
  expect(judgeSet([{ way: 'atomic' }, { way: 'live' }, { way: 'bind' }], report).level).toBe('none');
});

describe('volumes that were cut one after another', () => {
  const ways = [{ way: 'per-volume' }, { way: 'per-volume' }] as const;

  test('are whole where every writer was verified to hold', () => {
    const report = freezeReport({ ...left, writers: [writerReport('app', { guarantee: 'held' })] });
    expect(judgeSet(ways, report).level).toBe('application');
    const artefact = freezeReport({ ...left, writers: [writerReport('dump', { guarantee: 'artefact' })] });
    expect(judgeSet(ways, artefact).level).toBe('application');
  });

  test('are not for one that recovers by itself, which is named', () => {
    const writers = [writerReport('app', { guarantee: 'held' }), writerReport('50-postgresql')];
    const { level, sources, evidence } = judgeSet(ways, freezeReport({ ...left, writers }));
    expect({ level, sources }).toEqual({ level: 'none', sources: ['application', 'application'] });
    expect(evidence.at(-1)).toContain('not of one instant, which 50-postgresql would need');
  });

  test('are not where nobody speaks for an application, or one only claims', () => {
    expect(judgeSet(ways, freezeReport({ level: 'crash', levelWithProvider: 'filesystem' })).level).toBe('none');
    const claimed = writerReport('hook', { guarantee: 'held', verdict: 'claimed' });
    expect(judgeSet(ways, freezeReport({ ...left, writers: [claimed] })).level).toBe('none');
    const absent = writerReport('other', { guarantee: 'held', verdict: 'not-applicable' });
    expect(judgeSet(ways, freezeReport({ ...left, writers: [absent] })).level).toBe('none');
  });
});

test('one volume that its provider froze is worth what everything else allows', () => {
  expect(judgeSet([{ way: 'atomic' }], freezeReport(left))).toMatchObject({
    level: 'application',
    sources: ['application'],
  });
});

test('what is bound is worth nothing, and so is a set with it', () => {
  expect(judgeSet([{ way: 'atomic' }, { way: 'bind' }], freezeReport(application))).toMatchObject({
    level: 'none',
    sources: ['application', 'none'],
    evidence: [expect.anything(), '1 of 2 places are not snapshot, and change while they are read'],
  });
  expect(judgeSet([{ way: 'bind' }], undefined)).toMatchObject({ level: 'none', sources: ['none'] });
});
