// npm run torture -- matrix [--only FAULT/STEP] [--jobs N] [--json] [--update]: every cell of test/vm/faults/matrix.ts that
// can exist, in the guest that it needs. With --update the table in test/vm/faults/README.md is written anew, if all are
// green.
import { runCell, type CellResult } from '../vm/faults/runner.js';
import { faultAt } from '../vm/faults/faults.js';
import { ALL_CELLS, ALSO_IN_QEMU, cellOf, RUN_CELLS, runOf, type CellName } from '../vm/faults/matrix.js';
import { readable } from '../vm/faults/timeline.js';
import { prepareLabs } from '../vm/faults/lab.js';
import { runPrivateTmp, type PrivateTmpResult } from '../vm/faults/private-tmp.js';
import { describePrivateTmp, writeTable } from '../vm/faults/table.js';
import { shareOut, type Task } from './share-out.js';
import { describeWorst, worstOf } from './worst.js';

/** For `--only`: no cell of its own, but the same two faults at the same step. */
const PRIVATE_TMP = 'PrivateTmp';

export interface MatrixOptions {
  /** `FAULT/STEP`; either may be left empty, or be the beginning of the name. `PrivateTmp`: that variant alone. */
  readonly only: string | undefined;
  /** User-mode guests at a time. */
  readonly jobs: number;
  readonly json: boolean;
  readonly update: boolean;
}

function chosen(only: string | undefined, from: readonly CellName[]): readonly CellName[] {
  if (only === undefined) return from;
  const [fault = '', step = ''] = only.split('/');
  return from.filter((cell) => cell.fault.startsWith(fault) && cell.step.startsWith(step));
}

function spending({ fault, step }: CellName): number {
  return faultAt(fault, step).spends === true ? 1 : 0;
}

function nameOf({ fault, step, kind }: CellResult): string {
  return `${fault} / ${step}, ${kind}`;
}

function line(result: CellResult): string {
  const { complaints, told, backMs, releaseMs, tookMs, timeline } = result;
  const shortTold = told.length > 60 ? `${told.slice(0, 57)}...` : told;
  const measures = `back ${backMs ?? '-'} ms, release ${releaseMs ?? '-'} ms, took ${(tookMs / 1000).toFixed(1)} s`;
  const head = `${complaints.length === 0 ? 'ok  ' : 'FAIL'} ${nameOf(result)}: told ${shortTold}; ${measures}`;
  if (complaints.length === 0) return head;
  return [head, ...complaints.map((complaint) => `       ${complaint}`), readable(timeline)].join('\n');
}

/** Gives the exit code: 0 if every cell held, 1 if not, 2 for a choice that names no cell. */
export async function runMatrix({ only, jobs, json, update }: MatrixOptions): Promise<number> {
  const all = only === undefined;
  if (chosen(only, ALL_CELLS).length === 0 && only !== PRIVATE_TMP) {
    console.error(`--only: expected FAULT/STEP of the matrix, found ${only ?? ''}`);
    return 2;
  }
  const say = json ? console.error : console.log;
  await prepareLabs();
  const start = performance.now();
  const results: CellResult[] = [];
  let privateTmp: PrivateTmpResult | undefined;
  const runs = [
    ...chosen(only, RUN_CELLS).map(runOf),
    ...(chosen(only, [ALSO_IN_QEMU]).length > 0 ? [ALSO_IN_QEMU] : []),
  ];
  // First those after which a guest is made anew: the longest ones.
  const inOrder = runs.toSorted((a, b) => spending(b) - spending(a));
  const tasks: Task[] = inOrder.map((run) => ({
    kind: run.kind,
    act: async (keeper) => {
      const result = await runCell(run, keeper);
      results.push(result);
      say(line(result));
    },
  }));
  if (all || only === PRIVATE_TMP) {
    tasks.unshift({
      kind: 'user-mode',
      act: async () => {
        privateTmp = await runPrivateTmp();
        say([describePrivateTmp(privateTmp), ...privateTmp.complaints].join('\n       '));
      },
    });
  }
  await shareOut(tasks, jobs);

  const without = chosen(only, ALL_CELLS).filter(({ fault, step }) => 'reason' in cellOf(fault, step));
  if (!all)
    for (const { fault, step } of without) {
      const cell = cellOf(fault, step);
      say(`-    ${fault} / ${step}: ${'reason' in cell ? cell.reason : ''}`);
    }
  const extraFailed = (privateTmp?.complaints.length ?? 0) > 0;
  const failed = results.filter(({ complaints }) => complaints.length > 0);
  const inQemu = results.filter(({ kind }) => kind === 'qemu').length;
  const tookS = ((performance.now() - start) / 1000).toFixed(0);
  say(
    `${results.length} run (${results.length - inQemu} in user-mode guests, ${inQemu} in QEMU) in ${tookS} s, ${results.length - failed.length} held, ${failed.length} did not, ${without.length} cannot exist`,
  );
  say(describeWorst(results, nameOf));
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
        without: without.length,
        worst: worstOf(results),
        cells: cellsOut,
      }),
    );
  }
  return failed.length === 0 && !extraFailed ? 0 : 1;
}
