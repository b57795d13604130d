// What many cuts show: for each application how many held, and of the wrong ones how many were found out by what they do.
import { CONTROLS, type Way } from './cut.js';
import type { Engine } from './engine.js';
import type { Complaint } from './judge.js';
import type { EngineResult, RunResult } from './run.js';
import type { Done } from './share-out.js';

/** By what a wrong cut has to be seen, one of these. What else is complained of does not count. */
const REASONS: Readonly<Record<Exclude<Way, 'held'>, readonly Complaint['kind'][]>> = {
  lost: ['not held'],
  unheld: ['missing', 'filesystem'],
  apart: ['missing', 'foreign', 'checker', 'not recovered'],
};

/** True if the judgement is what it should be: nothing against a cut, the right reason against one that was made wrong. */
function isRight(way: Way, { complaints }: EngineResult): boolean {
  if (way === 'held') return complaints.length === 0;
  return complaints.some(({ kind }) => REASONS[way].includes(kind));
}

/** The applications of a run whose judgement is not what it should be. */
export function wrongIn({ way, engines: results }: RunResult, engines: readonly Engine[]): readonly string[] {
  const wrong = results.filter((result) => !isRight(way, result)).map(({ engine }) => engine);
  return engines.filter((engine) => applies(way, engine) && wrong.includes(engine.name)).map(({ name }) => name);
}

/** What holds nothing cannot lose its hold. */
function applies(way: Way, engine: Engine): boolean {
  return way !== 'lost' || engine.lost !== undefined;
}

export interface Row {
  readonly engine: string;
  readonly held: string;
  readonly inQemu: string;
  /** Of logical volumes, by fsfreeze-snapshot in the guest. */
  readonly inGuest: string;
  readonly controls: Readonly<Record<Exclude<Way, 'held'>, string>>;
  /** Of cuts that held, until it answered. */
  readonly recoveryMs: { readonly median: number; readonly most: number } | null;
  /** The fewest of a cut and a source. */
  readonly acknowledged: number | null;
  /** The fewest of a cut, of all its sources. */
  readonly waited: number | null;
}

/** A row for each application, and a table of them. */
export function summarise(engines: readonly Engine[], { runs }: Done) {
  const rows = engines.map((engine) => rowOf(engine, runs));
  const head = [
    'database',
    'held',
    'in QEMU',
    'in the guest',
    ...CONTROLS,
    'recovery s (most)',
    'acknowledged',
    'waited',
  ];
  const cells = rows.map(({ engine, held, inQemu, inGuest, controls, recoveryMs, acknowledged, waited }) => [
    engine,
    held,
    inQemu,
    inGuest,
    ...CONTROLS.map((way) => controls[way]),
    recoveryMs === null ? '-' : `${seconds(recoveryMs.median)} (${seconds(recoveryMs.most)})`,
    String(acknowledged ?? '-'),
    String(waited ?? '-'),
  ]);
  const lines = [head, ...cells];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  const table = lines.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  return { rows, table: table.join('\n') };
}

const seconds = (ms: number): string => (ms / 1000).toFixed(1);

function rowOf(engine: Engine, runs: readonly RunResult[]): Row {
  const of = (way: Way, guest?: RunResult['guest']): readonly EngineResult[] =>
    runs
      .filter((run) => run.way === way && (guest === undefined || run.guest === guest))
      .flatMap(({ engines }) => engines.filter((result) => result.engine === engine.name));
  const ratio = (way: Way, guest?: RunResult['guest']): string => {
    const results = of(way, guest);
    if (results.length === 0 || !applies(way, engine)) return '-';
    return `${results.filter((result) => isRight(way, result)).length}/${results.length}`;
  };
  const held = of('held');
  const times = held.flatMap(({ recoveryMs }) => (recoveryMs === undefined ? [] : [recoveryMs])).sort((a, b) => a - b);
  const least = (numbers: readonly number[]): number | null => (numbers.length === 0 ? null : Math.min(...numbers));
  return {
    engine: engine.name,
    held: ratio('held'),
    inQemu: ratio('held', 'qemu'),
    inGuest: ratio('held', 'volumes'),
    controls: { lost: ratio('lost'), unheld: ratio('unheld'), apart: ratio('apart') },
    recoveryMs:
      times.length === 0 ? null : { median: times[Math.floor(times.length / 2)] ?? NaN, most: times.at(-1) ?? NaN },
    acknowledged: least(held.flatMap(({ counts }) => counts.map(({ acknowledged }) => acknowledged))),
    waited: least(held.map(({ counts }) => counts.reduce((sum, { waited }) => sum + (waited ?? 0), 0))),
  };
}

/** A line for people, and what was said against it. */
export function describeRun(run: RunResult, lab: readonly Engine[]): string {
  const { way, seed, index, guest, engines, pauseMs, tookMs } = run;
  const pause = pauseMs === undefined ? '' : `, paused ${Math.round(pauseMs)} ms`;
  const head = `${seed}/${index} ${way}, ${guest}${pause}, took ${seconds(tookMs)} s`;
  const against = engines.flatMap(({ engine, complaints }) => {
    const said = complaints.map(({ kind, text }) => `${kind}: ${text.replaceAll('\n', ' ')}`);
    return said.length === 0 ? [] : [`       ${engine}: ${said.join('; ')}`];
  });
  return [`${wrongIn(run, lab).length === 0 ? 'ok  ' : 'FAIL'} ${head}`, ...against].join('\n');
}
