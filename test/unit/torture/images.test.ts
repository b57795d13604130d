// The pure parts of `torture -- images`: what is drawn, what the model takes for possible, and what is complained of.
import { expect, test } from 'vitest';
import {
  admits,
  contentOf,
  difference,
  emptyContent,
  unsure,
  withDisk,
  written,
  type World,
} from '../../torture/images/contents.js';
import { ACT_KINDS, describeAct } from '../../torture/images/act.js';
import { drawImages, SPELLINGS } from '../../torture/images/draw.js';
import { judgeCall, judgeClaim, judgeFiles, judgeVm } from '../../torture/images/judge.js';
import type { Call } from '../../torture/images/tool.js';
import { tally } from '../../torture/tally.js';

const none = new Set<never>();
const draws = Array.from({ length: 500 }, (_, index) => drawImages(1, index, none));
const acts = draws.flatMap((each) => each.acts);

test('a sequence is what its seed and number say', () => {
  expect(drawImages(7, 3, none)).toEqual(drawImages(7, 3, none));
  expect(new Set(draws.map((each) => JSON.stringify(each))).size).toBe(500);
});

test('every act, spelling and instant of a kill is drawn, and about eight acts for a sequence', () => {
  for (const kind of ACT_KINDS) expect(acts.filter((act) => act.kind === kind).length).toBeGreaterThan(25);
  for (const spelling of SPELLINGS)
    expect(draws.filter(({ layout }) => layout.vms[0].spelling === spelling).length).toBeGreaterThan(12);
  const strikes = acts.flatMap((act) => ('strike' in act && act.strike !== undefined ? [act.strike] : []));
  expect(strikes.filter(({ who }) => who === 'QEMU').length).toBeGreaterThan(100);
  expect(strikes.filter(({ who }) => who === 'tool').length).toBeGreaterThan(200);
  const mean = strikes.reduce((sum, { at }) => sum + at, 0) / strikes.length;
  expect(mean).toBeGreaterThan(0.45);
  expect(mean).toBeLessThan(0.55);
  expect(acts.length / draws.length).toBeGreaterThan(7);
  expect(acts.length / draws.length).toBeLessThan(9);
});

test('what the tool lacks is not drawn', () => {
  const drawn = Array.from({ length: 100 }, (_, index) => drawImages(1, index, new Set(['copy', 'prune'])));
  expect(drawn.flatMap((each) => each.acts).filter(({ kind }) => kind === 'copy' || kind === 'prune')).toEqual([]);
});

test('an act is told with what it needs', () => {
  const strike = { who: 'QEMU', by: 'line', at: 0.25 } as const;
  expect(describeAct({ kind: 'commit', vm: 1, set: 1, off: false, writes: [], strike })).toBe(
    'commit (VM b) set 1 SIGKILL of QEMU at 0.250 of its lines',
  );
  expect(describeAct({ kind: 'start', vm: 0, from: 'base' })).toBe('start (VM a) from base');
});

test('a content is one byte for each block, and says of a block that is torn', () => {
  const bytes = Buffer.alloc(3 * 65_536);
  bytes.fill(0xab, 65_536, 2 * 65_536);
  expect(contentOf(bytes)).toBe('00ab00');
  bytes[2 * 65_536 + 5] = 1;
  expect(contentOf(bytes)).toBe('00ab??');
  expect(written(emptyContent(4), 1, 2, 7)).toBe('00070700');
});

const world: World = {
  options: [
    new Map([
      ['d0', '01'],
      ['d1', '01'],
    ]),
    new Map([
      ['d0', '02'],
      ['d1', '02'],
    ]),
  ],
  mixed: false,
};
const mix = new Map([
  ['d0', '01'],
  ['d1', '02'],
]);

test('disks of two instants are no possible state, unless something was left half-way', () => {
  expect(admits(world, new Map([['d1', '02']]))).toBe(true);
  expect(admits(world, mix)).toBe(false);
  expect(admits({ ...world, mixed: true }, mix)).toBe(true);
  expect(admits({ ...world, mixed: true }, new Map([['d0', '03']]))).toBe(false);
  expect(
    admits(
      withDisk(world, 'd1', () => '05'),
      new Map([['d1', '05']]),
    ),
  ).toBe(true);
});

test('a write that was on its way when QEMU ended may be there, or not, or in part; the rest is known', () => {
  const after: World = { options: [new Map([['d0', unsure('010203', 1, 1)]])], mixed: false };
  for (const content of ['010203', '010903', '01??03']) expect(admits(after, new Map([['d0', content]]))).toBe(true);
  expect(admits(after, new Map([['d0', '010204']]))).toBe(false);
  expect(difference(after.options, new Map([['d0', '010904']]))).toBe('disk d0: block 2 holds 04, expected 03');
});

test('a difference is told from the state it is nearest to', () => {
  expect(
    difference(
      world.options,
      new Map([
        ['d0', '02'],
        ['d1', '03'],
      ]),
    ),
  ).toBe('disk d1: block 0 holds 03, expected 02');
});

test('a VM that lost a write, a set that holds something else, a file of nobody: each has its complaint', () => {
  expect(judgeVm('a', 'which runs', world, new Map([['d0', '02']]))).toEqual([]);
  expect(judgeVm('a', 'which runs', world, mix)).toMatchObject([{ kind: 'lost write' }]);
  expect(judgeClaim('a/s0', 'cut', world.options, new Map())).toEqual([]);
  expect(judgeClaim('a/s0', 'cut', world.options, mix)).toMatchObject([{ kind: 'false claim' }]);
  expect(judgeClaim('a/s0', 'cut', [], new Map([['d0', '00']]))).toMatchObject([{ kind: 'false claim' }]);
  const spokenFor = new Set(['/i/a']);
  expect(judgeFiles(['/i/a', '/i/b', '/i/c'], spokenFor, 'keep or remove /i/b')).toMatchObject([
    { kind: 'file left', text: expect.stringContaining('/i/c') as string },
  ]);
});

test('a refusal of the tool is none, an internal error, a crash and a hang are', () => {
  const call: Call = { words: ['recover'], code: 5, json: undefined, stderr: '', tookMs: 100, struck: false };
  expect(judgeCall(call, 60_000)).toEqual([]);
  expect(judgeCall({ ...call, code: undefined, struck: true }, 60_000)).toEqual([]);
  expect(judgeCall({ ...call, code: 1 }, 60_000)).toMatchObject([{ kind: 'internal error' }]);
  expect(judgeCall({ ...call, code: undefined }, 60_000)).toMatchObject([{ kind: 'internal error' }]);
  expect(judgeCall({ ...call, tookMs: 60_000 }, 60_000)).toMatchObject([{ kind: 'hang' }]);
});

test('acts are counted by how they went', () => {
  const step = { act: '', kind: 'cut', strike: undefined, why: '' } as const;
  const steps = [
    { ...step, outcome: 'done' },
    { ...step, outcome: 'struck' },
    { ...step, outcome: 'done' },
  ] as const;
  expect(tally('cut', steps)).toEqual({ kind: 'cut', drawn: 3, done: 2, refused: 0, struck: 1, idle: 0 });
});
