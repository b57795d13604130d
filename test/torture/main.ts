// npm run torture -- matrix | random: breaks everything at every step, in real guests of both kinds (TCG will do). Not part of
// `npm test`, which runs one cell of the matrix per fault. Exit 0 if everything held, 1 if not, 2 on usage.
import { parseArgs } from 'node:util';
import { runMatrix } from './matrix.js';
import { runRandom } from './random.js';
import { USUAL_JOBS } from './share-out.js';

const USAGE = `usage: npm run torture -- matrix [--only FAULT/STEP] [--jobs N] [--json] [--update]
       npm run torture -- random --count N --seed S [--only I[,I...]] [--jobs N] [--json]`;

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
    },
    allowPositionals: true,
  });
  const { only, json, update } = values;
  const jobs = whole(values.jobs);
  if (jobs === undefined || jobs === 0) return usage('--jobs: expected a whole number from 1');
  if (positionals.join(' ') === 'matrix') return await runMatrix({ only, jobs, json, update });
  if (positionals.join(' ') !== 'random')
    return usage(`expected matrix or random, found ${positionals.join(' ') || 'nothing'}`);
  const seed = whole(values.seed);
  const indices = only?.split(',').map(whole);
  const count = values.count === undefined && indices !== undefined ? indices.length : whole(values.count);
  if (seed === undefined || count === undefined || count === 0)
    return usage('random: expected --count and --seed as whole numbers');
  const known = indices?.filter((index) => index !== undefined);
  if (known?.length !== indices?.length) return usage(`--only: expected numbers of runs, found ${only}`);
  return await runRandom({ seed, count, only: known, jobs, json });
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof TypeError && 'code' in error)) throw error;
  process.exitCode = usage(error.message); // parseArgs' own words
}
