// The pure parts of `torture -- backup`: what is drawn, and how it is told.
import { expect, test } from 'vitest';
import { ACT_KINDS, describeAct, ENDINGS } from '../../torture/backup/act.js';
import { drawBackup, FORMATS } from '../../torture/backup/draw.js';
import { countComplaints, tally } from '../../torture/tally.js';

const draws = Array.from({ length: 400 }, (_, index) => drawBackup(1, index));
const acts = draws.flatMap((each) => each.acts);

test('a sequence is what its seed and number say', () => {
  expect(drawBackup(7, 3)).toEqual(drawBackup(7, 3));
  expect(new Set(draws.map((each) => JSON.stringify(each))).size).toBe(400);
});

test('every act, every early end and every pair of formats is drawn', () => {
  for (const kind of ACT_KINDS) expect(acts.filter((act) => act.kind === kind).length, kind).toBeGreaterThan(20);
  const runs = acts.filter((act) => act.kind === 'backup');
  for (const ending of ENDINGS)
    expect(runs.filter(({ strike }) => strike?.ending === ending).length, ending).toBeGreaterThan(20);
  for (const one of FORMATS)
    for (const other of FORMATS)
      expect(draws.filter(({ formats }) => formats.join() === `${one},${other}`).length).toBeGreaterThan(15);
  expect(runs.filter(({ off }) => off).length).toBeGreaterThan(20);
  expect(runs.filter(({ writes }) => writes.length > 0).length).toBeGreaterThan(runs.length / 2);
  // Most end as they should: else there is nothing to restore.
  expect(runs.filter(({ strike }) => strike === undefined).length).toBeGreaterThan(runs.length / 3);
});

test('an act is told with what it needs', () => {
  const strike = { ending: 'tool killed', at: 0.25, laterMs: 100 } as const;
  const writes = [{ disk: 0, at: 0, kilobytes: 1, what: 'bytes' }] as const;
  expect(describeAct({ kind: 'backup', words: ['--full'], disk: undefined, off: false, writes, strike })).toBe(
    'backup --full while the guest writes (tool killed at 0.25 of its lines, 100 ms later)',
  );
  expect(describeAct({ kind: 'stop', how: 'kill' })).toBe('stop how kill');
});

test('acts are counted by how they went, and sequences by what was complained of', () => {
  const steps = [
    { kind: 'backup', outcome: 'done' },
    { kind: 'backup', outcome: 'refused' },
    { kind: 'write', outcome: 'done' },
  ] as const;
  expect(tally('backup', steps)).toEqual({ kind: 'backup', drawn: 2, done: 1, refused: 1, struck: 0, idle: 0 });
  const runs = [{ complaints: [{ kind: 'b' }, { kind: 'b' }] }, { complaints: [{ kind: 'a' }, { kind: 'b' }] }];
  expect(countComplaints(['a', 'b', 'c'], runs)).toEqual([
    ['a', 1],
    ['b', 2],
  ]);
});
