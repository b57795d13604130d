// npm run torture -- matrix | random | images | backup | backup-guest | in-guest: breaks everything at every step, in real guests of both
// kinds (TCG will do), and what lies on the host's disks, on QEMUs without a guest. Not part of `npm test`, which runs one
// cell of the matrix per fault and a few sequences on images and of backups. Exit 0 if everything held, 1 if not, 2 on usage.
import { parseArgs } from 'node:util';
import { runBackupGuest } from './backup-guest.js';
import { runBackupTorture } from './backup.js';
import { runImagesTorture } from './images.js';
import { kindsOf, runInGuest } from './in-guest.js';
import { KINDS } from './in-guest/draw.js';
import { runMatrix } from './matrix.js';
import { runRandom } from './random.js';
import { USUAL_JOBS } from './share-out.js';

const USAGE = `usage: npm run torture -- matrix [--only FAULT/STEP] [--jobs N] [--json] [--update]
       npm run torture -- random --count N --seed S [--only I[,I...]] [--jobs N] [--json]
       npm run torture -- images --count N --seed S [--only I[,I...]] [--jobs N] [--json] [--each] [--shrink]
       npm run torture -- backup --count N --seed S [--libvirt] [--only I[,I...]] [--jobs N] [--json] [--each]
       npm run torture -- backup-guest --count N [--json]
       npm run torture -- in-guest --count N --seed S [--kind ${KINDS.join('|')}[,...]] [--only I[,I...]] [--json]`;

function usage(why: string): number {
  console.error(`${why}\n${USAGE}`);
  return 2;
}

const whole = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: {
      only: { type: 'string' },
      jobs: { type: 'string', default: String(USUAL_JOBS) },
      json: { type: 'boolean', default: false },
      update: { type: 'boolean', default: false },
      count: { type: 'string' },
      seed: { type: 'string' },
      kind: { type: 'string' },
      each: { type: 'boolean', default: false },
      shrink: { type: 'boolean', default: false },
      libvirt: { type: 'boolean', default: false },
    },
    allowPositionals: true,
  });
  const { only, json, update, each, shrink, libvirt } = values;
  const jobs = whole(values.jobs);
  if (jobs === undefined || jobs === 0) return usage('--jobs: expected a whole number from 1');
  const what = positionals.join(' ');
  if (what === 'matrix') return await runMatrix({ only, jobs, json, update });
  if (what === 'backup-guest') {
    const increments = whole(values.count);
    if (increments === undefined) return usage('backup-guest: expected --count as a whole number');
    return await runBackupGuest({ count: increments, json });
  }
  if (what !== 'random' && what !== 'images' && what !== 'backup' && what !== 'in-guest')
    return usage(
      `expected matrix, random, images, backup, backup-guest or in-guest, found ${what === '' ? 'nothing' : what}`,
    );
  const seed = whole(values.seed);
  const indices = only?.split(',').map(whole);
  const count = values.count === undefined && indices !== undefined ? indices.length : whole(values.count);
  if (seed === undefined || count === undefined || count === 0)
    return usage(`${what}: expected --count and --seed as whole numbers`);
  const known = indices?.filter((index) => index !== undefined);
  if (known?.length !== indices?.length) return usage(`--only: expected numbers of runs, found ${only}`);
  if (what === 'images') return await runImagesTorture({ seed, count, only: known, jobs, json, each, shrink });
  if (what === 'backup') return await runBackupTorture({ seed, count, only: known, jobs, json, each, libvirt });
  if (what === 'in-guest') {
    const kinds = kindsOf(values.kind);
    if (kinds === undefined) return usage(`--kind: expected some of ${KINDS.join(',')}, found ${values.kind ?? ''}`);
    return await runInGuest({ seed, count, only: known, kinds, json });
  }
  return await runRandom({ seed, count, only: known, jobs, json });
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof TypeError && 'code' in error)) throw error;
  process.exitCode = usage(error.message); // parseArgs' own words
}
