// npm run torture -- backup --count N --seed S [--only I[,I...]] [--jobs N] [--json] [--each]: random sequences of backups,
// and of what goes wrong with them, on a VM without a guest. After each sequence every run that is listed restores to
// exactly the bytes that the disks held at its cut. A run is repeated by its seed and number alone; --each judges after
// each act.
import { ACT_KINDS, ENDINGS } from './backup/act.js';
import { drawBackup, type BackupDraw } from './backup/draw.js';
import { COMPLAINTS } from './backup/judge.js';
import { runBackups, type BackupResult } from './backup/run.js';
import { countComplaints, tally } from './tally.js';

export interface BackupOptions {
  readonly seed: number;
  readonly count: number;
  readonly only: readonly number[] | undefined;
  readonly jobs: number;
  readonly json: boolean;
  readonly each: boolean;
}

/** Gives the exit code: 0 if every run held. */
export async function runBackupTorture({ seed, count, only, jobs, json, each }: BackupOptions): Promise<number> {
  const say = json ? console.error : console.log;
  const begin = performance.now();
  const queue = [...(only ?? Array.from({ length: count }, (_, index) => index))];
  const results: BackupResult[] = [];
  const worker = async (): Promise<void> => {
    for (let index = queue.shift(); index !== undefined; index = queue.shift()) {
      const drawn = drawBackup(seed, index);
      const result = await runBackups(index, drawn, each);
      results.push(result);
      say(describe(result, seed, drawn));
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  results.sort((a, b) => a.index - b.index);
  const failed = results.filter(({ complaints }) => complaints.length > 0);
  const steps = results.flatMap((result) => result.steps);
  const seconds = (performance.now() - begin) / 1000;
  const sum = (of: 'made' | 'full' | 'incremental' | 'compared'): number =>
    results.reduce((total, result) => total + result[of], 0);
  const totals = {
    made: sum('made'),
    full: sum('full'),
    incremental: sum('incremental'),
    compared: sum('compared'),
  };
  say(`${results.length} sequences in ${seconds.toFixed(0)} s, ${failed.length} did not hold`);
  say(
    `  ${totals.made} runs were made (${totals.full} disks in full, ${totals.incremental} as increments), ${totals.compared} restores compared`,
  );
  const acts = ACT_KINDS.map((kind) => tally(kind, steps));
  for (const { kind, drawn, done, refused, struck, idle } of acts)
    say(`  ${kind}: drawn ${drawn}, done ${done}, refused ${refused}, struck ${struck}, nothing there ${idle}`);
  const strikes = ENDINGS.map((ending) => {
    const own = steps.filter((step) => step.ending === ending);
    return { ending, drawn: own.length, struck: own.filter(({ outcome }) => outcome !== 'done').length };
  });
  for (const { ending, drawn, struck } of strikes) say(`  ${ending}: drawn ${drawn}, in time ${struck}`);
  const complaints = countComplaints(COMPLAINTS, failed);
  say(`sequences by complaint: ${complaints.map(([kind, runs]) => `${kind} ${runs}`).join(', ') || 'none'}`);
  if (failed.length > 0)
    say(`again: npm run torture -- backup --seed ${seed} --only ${failed.map(({ index }) => index).join(',')}`);
  if (json) {
    const summary = { torture: 'backup', seed, count: results.length, failed: failed.length, seconds, ...totals };
    console.log(
      JSON.stringify({ ...summary, acts, strikes, complaints: Object.fromEntries(complaints), runs: results }),
    );
  }
  return failed.length === 0 ? 0 : 1;
}

function describe(
  { index, steps, complaints, made, tookMs }: BackupResult,
  seed: number,
  { formats }: BackupDraw,
): string {
  const head = `${complaints.length === 0 ? 'ok  ' : 'FAIL'} ${seed}/${index}: ${steps.length} acts, ${made} runs in ${(tookMs / 1000).toFixed(1)} s`;
  if (complaints.length === 0) return head;
  return [
    `${head}, disks ${formats.join(' and ')}`,
    ...steps.map(({ act, outcome, why }) => `       - ${act}: ${outcome}${why === '' ? '' : ` (${why})`}`),
    ...complaints.map(({ kind, text }) => `       ${kind.toUpperCase()}: ${text}`),
  ].join('\n');
}
