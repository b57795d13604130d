import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { FAULTS } from '../../../vm/faults/faults.js';
import { ALL_CELLS, ALSO_IN_QEMU, cellOf, RUN_CELLS, runOf, TELLING } from '../../../vm/faults/matrix.js';
import { README, readTable, renderTable } from '../../../vm/faults/table.js';
import { parseTimeline, stepAt, STEPS } from '../../../vm/faults/timeline.js';

test('22 faults, 6 steps, at least 100 cells that are run, and a reason for each of the rest', () => {
  expect(FAULTS).toHaveLength(22);
  expect(STEPS).toHaveLength(6);
  expect(ALL_CELLS).toHaveLength(132);
  expect(RUN_CELLS.length).toBeGreaterThanOrEqual(100);
  for (const { fault, step } of ALL_CELLS) {
    const cell = cellOf(fault, step);
    if ('reason' in cell) expect(cell.reason.length).toBeGreaterThan(20);
  }
});

test('one cell of each fault is run by npm test', () => {
  for (const fault of FAULTS) expect(cellOf(fault, TELLING[fault])).toHaveProperty('told');
});

test('the table of the README names the cells of the data, and no others', async () => {
  const inTable = readTable(await readFile(README, 'utf8'));
  const inData = ALL_CELLS.map(({ fault, step }) => {
    const cell = cellOf(fault, step);
    return {
      fault,
      step,
      told: 'told' in cell ? cell.told : undefined,
      reason: 'told' in cell ? undefined : cell.reason,
    };
  });
  expect(inTable).toEqual(inData);
});

test('each cell is run in the guest that its fault needs, and one of them in QEMU too', () => {
  const runs = RUN_CELLS.map(runOf);
  const ofKind = (kind: string): number => runs.filter((run) => run.kind === kind).length;
  expect(ofKind('user-mode')).toBeGreaterThanOrEqual(70);
  expect(ofKind('qemu')).toBeGreaterThanOrEqual(40);
  for (const { fault, kind } of runs)
    if (/^(host tool|agent channel|monitor|QEMU)/.test(fault)) expect(kind, fault).toBe('qemu');
  const stalls = STEPS.map((step) => runOf({ fault: 'disk answers ENOSPC, or stalls', step }).kind);
  expect(stalls).toEqual(['user-mode', 'user-mode', 'user-mode', 'qemu', 'user-mode', 'user-mode']);
  expect(runOf(ALSO_IN_QEMU).kind).toBe('user-mode');
});

test('a table that is written is read as the data', () => {
  const entries = RUN_CELLS.map(runOf).map((run, index) => ({ ...run, backMs: index % 2 === 0 ? index : undefined }));
  const text = `<!-- table: written by npm run torture -- matrix --update -->\n${renderTable(entries)}\n<!-- end of the table -->\n`;
  expect(readTable(text)).toHaveLength(132);
  expect(() => renderTable(entries.slice(1))).toThrow('was not run');
});

test('the step of a shot, by marker and phases', () => {
  const noted = [
    'begin 20-holder prepare 10 100',
    'end 20-holder prepare 10 200 0',
    'begin 20-holder freeze 11 300',
    'end 20-holder freeze 11 400 0',
    'marker 500 2 1 0 0',
    'marker 600 0 3 0 0',
    'marker 700 0 1 0 2',
    'marker 750 none',
    'begin 20-holder thaw 12 800',
    'end 20-holder thaw 12 900 0',
    'shot 150 none',
    'shot 350 none',
    'shot 550 2 1 0 0',
    'shot 650 0 3 0 0',
    'shot 720 0 1 0 2',
    'shot 780 none',
    'shot 850 none',
    'shot 950 none',
    'shot 50 none',
    'now 1000',
  ].join('\n');
  const timeline = parseTimeline(noted);
  expect(timeline.shots.map((shot) => stepAt(timeline, shot))).toEqual([
    'prepare',
    'hold',
    'freeze',
    'frozen',
    'thaw',
    'release',
    'release',
    undefined,
    undefined,
  ]);
});
