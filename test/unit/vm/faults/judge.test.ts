// The judge itself: a guest that does what it should has no complaint, and each promise that is broken has its own.
import { expect, test } from 'vitest';
import { judgeBack, judgeLevel, judgeWriters, type Instants } from '../../../vm/faults/judge.js';
import type { Attempt } from '../../../vm/faults/requesters.js';
import { parseTimeline, type Timeline } from '../../../vm/faults/timeline.js';

/** Milliseconds in the text, nanoseconds in the timeline. */
function noted(lines: readonly string[], nowMs = 20_000): Timeline {
  const last = ['/', '/srv/data', '/srv/more'].map((directory) => `last ${directory} ${nowMs}`);
  const text = [...lines, `now ${nowMs}`, ...last].join('\n');
  return parseTimeline(text.replace(/\b(\d{3,})\b/g, '$1000000'));
}

const frozenFrom1000To = (endMs: number): string[] => [
  'marker 1000 3 0 0 0',
  'marker 1020 0 3 0 0',
  ...['/', '/srv/data', '/srv/more'].map((directory) => `gap ${directory} 0990 ${endMs}`),
  `marker ${endMs} none`,
];
const writers = (thawMs: number): string[] =>
  ['10-bystander', '15-resident', '20-holder'].flatMap((writer, index) => [
    `begin ${writer} freeze 1${index} 0800`,
    `end ${writer} freeze 1${index} 0810 0`,
    `hold ${writer} - 2${index} 0805`,
    `begin ${writer} thaw 3${index} ${thawMs}`,
    `end ${writer} thaw 3${index} ${thawMs + 10} 0`,
  ]);

const at: Instants = {
  shotNs: 1500e6,
  leaseMs: 4000,
  renews: false,
  atOnce: false,
  letGoNs: [1600e6],
  stalledUntilNs: undefined,
  agentDies: false,
  foreignFrozen: undefined,
};

test('back within a second of the lease', () => {
  expect(judgeBack(noted(frozenFrom1000To(5900)), at)).toEqual({ complaints: [], backMs: 900 });
  expect(judgeBack(noted(frozenFrom1000To(6100)), at).complaints).toHaveLength(3);
  expect(judgeBack(noted(frozenFrom1000To(1700)), at)).toMatchObject({ complaints: [], backMs: -3300 });
});

test('at once where the fault ends the hold, and later where a disk stalls', () => {
  expect(judgeBack(noted(frozenFrom1000To(2600)), { ...at, atOnce: true }).complaints).toHaveLength(3);
  expect(judgeBack(noted(frozenFrom1000To(2400)), { ...at, atOnce: true })).toEqual({ complaints: [], backMs: 900 });
  const stalled = { ...at, atOnce: true, stalledUntilNs: 8000e6 };
  expect(judgeBack(noted(frozenFrom1000To(8900)), stalled).complaints).toEqual([]);
  expect(judgeBack(noted(frozenFrom1000To(9100)), stalled).complaints).toHaveLength(3);
});

test('a filesystem that stays frozen, is frozen again, or answers an error is seen', () => {
  const open = noted(frozenFrom1000To(1700)).gaps;
  const never = { ...noted([]), gaps: [...open, { directory: '/', startNs: 1800e6, endNs: 20_000e6, open: true }] };
  expect(judgeBack(never, at).complaints).toEqual([expect.stringContaining('/ takes no writes')]);
  const again = noted([...frozenFrom1000To(1700), 'gap / 7000 9000']);
  expect(judgeBack(again, at).complaints).toEqual([expect.stringContaining('only after 2000 ms')]);
  expect(judgeBack(noted(['probe-error / 5 1800']), at).complaints).toEqual(['a write to / failed with errno 5']);
});

test('time that the guest was not let run does not count', () => {
  const starved = noted([...frozenFrom1000To(6500), 'lost 4900 0100', 'lost 6400 0800']);
  expect(judgeBack(starved, at)).toEqual({ complaints: [], backMs: 700 });
});

test('writers: released in time, each of them, and killed at their limit', () => {
  const good = noted([...frozenFrom1000To(1700), ...writers(1800)]);
  expect(judgeWriters(good, at)).toMatchObject({ complaints: [], waiting: [], releaseMs: 100 });
  const late = noted([...frozenFrom1000To(1700), ...writers(2900)]);
  expect(judgeWriters(late, at).complaints).not.toEqual([]);
  expect(judgeWriters(late, { ...at, agentDies: true }).complaints).toEqual([]);
  const forgotten = noted([
    ...frozenFrom1000To(1700),
    ...writers(1800).filter((line) => !line.includes('holder thaw')),
  ]);
  expect(judgeWriters(forgotten, at).waiting).toEqual(['20-holder was not released']);
  const endless = noted([...frozenFrom1000To(1700), ...writers(1800), 'begin 20-holder verify 99 1750']);
  expect(judgeWriters(endless, at).complaints).toEqual([expect.stringContaining('verify of 20-holder ran for')]);
});

test('a resident has let go when its process is gone', () => {
  const lines = writers(1800).filter((line) => !line.includes('15-resident thaw'));
  expect(judgeWriters(noted([...frozenFrom1000To(1700), ...lines]), at).waiting).toHaveLength(1);
  expect(judgeWriters(noted([...frozenFrom1000To(1700), ...lines, 'gone 11 1750']), at).waiting).toEqual([]);
});

const told = (level: Attempt['level'], from = 1100, to = 1600): Attempt => ({
  level,
  error: undefined,
  exitCode: undefined,
  heldNs: { from: from * 1e6, to: to * 1e6 },
});

test('a level above the data, or above what the probe saw, is seen', () => {
  const good = noted([...frozenFrom1000To(1700), ...writers(1800)]);
  expect(judgeLevel(good, 'application', told('application'))).toEqual([]);
  expect(judgeLevel(good, 'application', told('crash'))).toHaveLength(1);
  expect(judgeLevel(good, 'up to crash', told('crash'))).toEqual([]);
  expect(judgeLevel(good, 'up to crash', told(undefined))).toEqual([]);
  expect(judgeLevel(good, 'up to crash', told('filesystem'))).toHaveLength(1);
  expect(judgeLevel(good, 'nothing', told('crash'))).toHaveLength(1);
  // The requester believed it held until 2000, but writes went through from 1700 on.
  expect(judgeLevel(good, 'application', told('application', 1100, 2000))).toHaveLength(3);
  expect(judgeLevel(good, 'application', told('application'), 1300e6)).toHaveLength(1);
  const dead = noted([...frozenFrom1000To(1700), ...writers(1800), 'gone 22 1400']);
  expect(judgeLevel(dead, 'application', told('application'))).toEqual([expect.stringContaining('20-holder had died')]);
  expect(judgeLevel(dead, 'filesystem', told('filesystem'))).toEqual([]);
});

test('a hold that was too short for a gap is believed where the probe waited and the marker says so', () => {
  const quick = (marker: string): Timeline =>
    noted([
      'marker 1000 3 0 0 0',
      `marker 1005 ${marker}`,
      ...['/', '/srv/data', '/srv/more'].map((directory) => `short ${directory} 0995 1025`),
      'marker 1024 none',
    ]);
  const attempt: Attempt = {
    level: 'filesystem',
    error: undefined,
    exitCode: 0,
    heldNs: { from: 1015e6, to: 1010e6 },
  };
  expect(judgeLevel(quick('0 3 0 0'), 'filesystem', attempt)).toEqual([]);
  expect(judgeLevel(quick('1 2 0 0'), 'filesystem', attempt)).toHaveLength(3);
  const later = { ...attempt, heldNs: { from: 1035e6, to: 1030e6 } };
  expect(judgeLevel(quick('0 3 0 0'), 'filesystem', later)).toHaveLength(3);
});
