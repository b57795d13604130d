// The table in README.md: one row per fault, one column per step. Written by `npm run torture -- matrix --update`, and
// compared with the data by a unit test.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { FAULTS, type FaultName } from './faults.js';
import type { GuestKind } from '../../../src/testing/index.js';
import { cellOf, runOf, type CellRun, type Told } from './matrix.js';
import { PRIVATE_TMP_WATCH_MS, type PrivateTmpResult } from './private-tmp.js';
import { STEPS, type Step } from './timeline.js';

export const README = fileURLToPath(new URL('README.md', import.meta.url));
const BEGIN = '<!-- table: written by npm run torture -- matrix --update -->';
const END = '<!-- end of the table -->';

/** What a run adds to the data: how long the guest needed to be back, where that was measured. */
export interface TableEntry extends CellRun {
  readonly backMs: number | undefined;
}

export function renderTable(entries: readonly TableEntry[]): string {
  const reasons: string[] = [];
  const cellText = (fault: FaultName, step: Step): string => {
    const cell = cellOf(fault, step);
    if ('reason' in cell) {
      if (!reasons.includes(cell.reason)) reasons.push(cell.reason);
      return `- (${reasons.indexOf(cell.reason) + 1})`;
    }
    const { kind } = runOf({ fault, step });
    const entry = entries.find((each) => each.fault === fault && each.step === step && each.kind === kind);
    if (entry === undefined) throw new Error(`${fault} at ${step} was not run`);
    return entry.backMs === undefined ? cell.told : `${cell.told}; ${Math.round(entry.backMs)} ms`;
  };
  const rows = FAULTS.map(
    (fault) => `| ${[fault, guestText(fault), ...STEPS.map((step) => cellText(fault, step))].join(' | ')} |`,
  );
  const head = [`| fault | guest | ${STEPS.join(' | ')} |`, `| --- | --- |${' --- |'.repeat(STEPS.length)}`];
  const notes = reasons.map((reason, index) => `${index + 1}. ${reason}`);
  return [...head, ...rows, '', ...notes].join('\n');
}

const KIND_NAMES: Readonly<Record<GuestKind, string>> = { qemu: 'QEMU', 'user-mode': 'user-mode' };

/** The guest in which the fault is done, and the steps that have another one. */
function guestText(fault: FaultName): string {
  const [first, ...others] = STEPS.map((step) => runOf({ fault, step }));
  if (first === undefined) return '';
  const elsewhere = others
    .filter(({ kind }) => kind !== first.kind)
    .map(({ step, kind }) => `${KIND_NAMES[kind]} at ${step}`);
  return [KIND_NAMES[first.kind], ...elsewhere].join(', ');
}

/** One sentence on what was measured. */
export function describePrivateTmp({ backMs, managerWaited }: PrivateTmpResult): string {
  const waited = managerWaited ? 'while the service manager waited' : 'though the service manager did not wait';
  const outcome =
    backMs === undefined
      ? `not back by itself within ${PRIVATE_TMP_WATCH_MS / 1000} s, and at once after \`freezer --thaw-marked\` by hand`
      : `back ${Math.round(backMs)} ms after the two were killed`;
  return `Both SIGKILLed at frozen ${waited} for the frozen root, to start a unit with PrivateTmp: ${outcome}.`;
}

/** Puts a table, and what was measured beside it, into README.md. */
export async function writeTable(entries: readonly TableEntry[], privateTmp: PrivateTmpResult): Promise<void> {
  const text = await readFile(README, 'utf8');
  const [before, after] = halves(text);
  await writeFile(
    README,
    `${before}${BEGIN}\n\n${renderTable(entries)}\n\n${describePrivateTmp(privateTmp)}\n\n${END}${after}`,
  );
}

function halves(text: string): [string, string] {
  const begin = text.indexOf(BEGIN);
  const end = text.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`${README}: expected "${BEGIN}" and "${END}"`);
  return [text.slice(0, begin), text.slice(end + END.length)];
}

export interface TableCell {
  readonly fault: string;
  readonly step: string;
  /** Undefined: the table says that it cannot exist. */
  readonly told: Told | undefined;
  readonly reason: string | undefined;
}

/** The cells of the table in this text. */
export function readTable(text: string): readonly TableCell[] {
  const [before, after] = halves(text);
  const lines = text.slice(before.length, text.length - after.length).split('\n');
  const wordsOf = (line: string): string[] =>
    line
      .split('|')
      .slice(1, -1)
      .map((word) => word.trim());
  // The first two columns are the fault and its guest.
  const [head = [], , ...rows] = lines.filter((line) => line.startsWith('|')).map(wordsOf);
  const reasons = new Map(
    lines.flatMap((line) => {
      const [, number, reason] = /^(\d+)\. (.*)$/.exec(line) ?? [];
      return number === undefined || reason === undefined ? [] : [[number, reason] as const];
    }),
  );
  return rows.flatMap(([fault = '', , ...cells]) =>
    cells.map((cell, index) => {
      const number = /^- \((\d+)\)$/.exec(cell)?.[1];
      const step = head[index + 2] ?? '';
      return number === undefined
        ? { fault, step, told: (cell.split(';')[0] ?? '') as Told, reason: undefined }
        : { fault, step, told: undefined, reason: reasons.get(number) };
    }),
  );
}
