// npm run torture -- matrix [--only FAULT/STEP] [--json] [--update]: every cell of test/vm/faults/matrix.ts that can
// exist, one after another. With --update the table in test/vm/faults/README.md is written anew, if all are green.
import { runCell, type CellResult } from '../vm/faults/runner.js';
import { ALL_CELLS, cellOf, RUN_CELLS, type CellName } from '../vm/faults/matrix.js';
import { readable } from '../vm/faults/timeline.js';
import { runPrivateTmp } from '../vm/faults/private-tmp.js';
import { describePrivateTmp, writeTable } from '../vm/faults/table.js';

/** For `--only`: no cell of its own, but the same two faults at the same step. */
const PRIVATE_TMP = 'PrivateTmp';

export interface MatrixOptions {
  /** `FAULT/STEP`; either may be left empty, or be the beginning of the name. `PrivateTmp`: that variant alone. */
  readonly only: string | undefined;
  readonly json: boolean;
  readonly update: boolean;
}

function chosen(only: string | undefined): readonly CellName[] {
  if (only === undefined) return RUN_CELLS;
  const [fault = '', step = ''] = only.split('/');
  return ALL_CELLS.filter((cell) => cell.fault.startsWith(fault) && cell.step.startsWith(step));
}

function line({ fault, step, complaints, told, backMs, releaseMs, tookMs }: CellResult): string {
  const shortTold = told.length > 60 ? `${told.slice(0, 57)}...` : told;
  const measures = `back ${backMs ?? '-'} ms, release ${releaseMs ?? '-'} ms, took ${(tookMs / 1000).toFixed(1)} s`;
  const head = `${complaints.length === 0 ? 'ok  ' : 'FAIL'} ${fault} / ${step}: told ${shortTold}; ${measures}`;
  return [head, ...complaints.map((complaint) => `       ${complaint}`)].join('\n');
}

/** Gives the exit code: 0 if every cell held, 1 if not, 2 for a choice that names no cell. */
export async function runMatrix({ only, json, update }: MatrixOptions): Promise<number> {
  const cells = chosen(only);
  if (cells.length === 0 && only !== PRIVATE_TMP) {
    console.error(`--only: expected FAULT/STEP of the matrix, found ${only ?? ''}`);
    return 2;
  }
  const say = json ? console.error : console.log;
  const results: CellResult[] = [];
  let without = 0;
  for (const cell of cells) {
    const data = cellOf(cell.fault, cell.step);
    if ('reason' in data) {
      without++;
      say(`-    ${cell.fault} / ${cell.step}: ${data.reason}`);
      continue;
    }
    const result = await runCell(cell);
    results.push(result);
    say(line(result));
    if (result.complaints.length > 0) say(readable(result.timeline));
  }
  const privateTmp = only === undefined || only === PRIVATE_TMP ? await runPrivateTmp() : undefined;
  if (privateTmp !== undefined) say([describePrivateTmp(privateTmp), ...privateTmp.complaints].join('\n       '));
  const extraFailed = (privateTmp?.complaints.length ?? 0) > 0;
  const failed = results.filter(({ complaints }) => complaints.length > 0);
  const all = only === undefined;
  const reasons = all ? ALL_CELLS.length - RUN_CELLS.length : without;
  say(
    `${results.length} run, ${results.length - failed.length} held, ${failed.length} did not, ${reasons} cannot exist`,
  );
  if (update) {
    if (privateTmp === undefined || failed.length > 0 || extraFailed) {
      console.error('--update: the table is written by a whole run alone, and if every cell held');
      return failed.length > 0 ? 1 : 2;
    }
    await writeTable(results, privateTmp);
  }
  if (json) {
    const cellsOut = results.map((each) => ({ ...each, timeline: undefined }));
    console.log(
      JSON.stringify({
        torture: 'matrix',
        run: results.length,
        failed: failed.length,
        without: reasons,
        cells: cellsOut,
      }),
    );
  }
  return failed.length === 0 && !extraFailed ? 0 : 1;
}
