// npm run torture -- backup --count N --seed S [--libvirt] [--only I[,I...]] [--jobs N] [--json] [--each]: random sequences
// of backups, and of what goes wrong with them, on a VM without a guest: a plain QEMU, or a domain of a real libvirtd. After each sequence every run that is listed restores to
// exactly the bytes that the disks held at its cut. A run is repeated by its seed and number alone; --each judges after
// each act.
import { LibvirtHost } from '../support/libvirt.js';
import { DOMAIN_ACTS, DOMAIN_ENDINGS, drawDomain } from './backup-domain/draw.js';
import { runDomainBackups } from './backup-domain/run.js';
import { ACT_KINDS, ENDINGS } from './backup/act.js';
import { drawBackup } from './backup/draw.js';
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
  readonly libvirt: boolean;
}

/** A run by its number, and what it may consist of. */
interface Kind {
  readonly acts: readonly string[];
  readonly endings: readonly string[];
  /** Words after `npm run torture --`. */
  readonly words: string;
  run(index: number): Promise<BackupResult>;
}

/** Gives the exit code: 0 if every run held. */
export async function runBackupTorture(options: BackupOptions): Promise<number> {
  const { seed, each } = options;
  if (!options.libvirt) {
    const run = async (index: number) => await runBackups(index, drawBackup(seed, index), each);
    return await runAll(options, { acts: ACT_KINDS, endings: ENDINGS, words: 'backup', run });
  }
  await using host = await LibvirtHost.start();
  const run = async (index: number) => await runDomainBackups(host, index, drawDomain(seed, index), each);
  return await runAll(options, { acts: DOMAIN_ACTS, endings: DOMAIN_ENDINGS, words: 'backup --libvirt', run });
}

async function runAll({ seed, count, only, jobs, json }: BackupOptions, kind: Kind): Promise<number> {
  const say = json ? console.error : console.log;
  const begin = performance.now();
  const queue = [...(only ?? Array.from({ length: count }, (_, index) => index))];
  const results: BackupResult[] = [];
  const worker = async (): Promise<void> => {
    for (let index = queue.shift(); index !== undefined; index = queue.shift()) {
      const result = await kind.run(index);
      results.push(result);
      say(describe(result, seed));
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
  const acts = kind.acts.map((each) => tally(each, steps));
  for (const { kind: act, drawn, done, refused, struck, idle } of acts)
    say(`  ${act}: drawn ${drawn}, done ${done}, refused ${refused}, struck ${struck}, nothing there ${idle}`);
  const strikes = kind.endings.map((ending) => {
    const own = steps.filter((step) => step.ending === ending);
    return { ending, drawn: own.length, struck: own.filter(({ outcome }) => outcome !== 'done').length };
  });
  for (const { ending, drawn, struck } of strikes) say(`  ${ending}: drawn ${drawn}, in time ${struck}`);
  const complaints = countComplaints(COMPLAINTS, failed);
  say(`sequences by complaint: ${complaints.map(([complaint, runs]) => `${complaint} ${runs}`).join(', ') || 'none'}`);
  if (failed.length > 0)
    say(`again: npm run torture -- ${kind.words} --seed ${seed} --only ${failed.map(({ index }) => index).join(',')}`);
  if (json) {
    const summary = { torture: kind.words, seed, count: results.length, failed: failed.length, seconds, ...totals };
    console.log(
      JSON.stringify({ ...summary, acts, strikes, complaints: Object.fromEntries(complaints), runs: results }),
    );
  }
  return failed.length === 0 ? 0 : 1;
}

function describe({ index, steps, complaints, made, about, tookMs }: BackupResult, seed: number): string {
  const head = `${complaints.length === 0 ? 'ok  ' : 'FAIL'} ${seed}/${index}: ${steps.length} acts, ${made} runs in ${(tookMs / 1000).toFixed(1)} s`;
  if (complaints.length === 0) return head;
  return [
    `${head}${about}`,
    ...steps.map(({ act, outcome, why }) => `       - ${act}: ${outcome}${why === '' ? '' : ` (${why})`}`),
    ...complaints.map(({ kind, text }) => `       ${kind.toUpperCase()}: ${text}`),
  ].join('\n');
}
