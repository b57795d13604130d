// npm run oracle [-- --only NAME,... --count N ...]: databases in real guests, loaded, held by our writers, cut, recovered
// from the cut and compared with what their clients were told; and cuts made wrong on purpose, which must be found out.
// Not part of `npm test`, which takes one of each. Exit 0 if every cut held and every wrong one was found out, 1 if not,
// 2 on usage.
import { parseArgs } from 'node:util';
import { KERNEL_VERSIONS } from '../../src/testing/index.js';
import { CONTROLS, type Way } from './cut.js';
import { engineFor, isEngine, RECIPES, type EngineName, type RecipeName } from './engines.js';
import { makeLab } from './lab.js';
import { summarise, wrongIn } from './report.js';
import type { LoadKind } from './run.js';
import { shareOut, type Task } from './share-out.js';

const USAGE = `usage: npm run oracle -- [--count N] [--only NAME[,NAME...]] [--seed S] [--controls N] [--qemu N] [--in-guest N]
                          [--recipe R] [--kernel K] [--jobs N] [--json]

Cuts databases that are written to, boots a second guest from each cut, and compares it with what the clients know.
Control-C ends it with what has been done by then.

  --count N      cuts, each of all the databases at once (default 8)
  --only NAMES   of ${Object.keys(engineFor).join(', ')} (default: all that the recipe has)
  --seed S       draws the instants of the cuts (default 1)
  --controls N   of each way to cut wrong: ${CONTROLS.join(', ')} (default: an eighth of --count, at least 1)
  --qemu N       of the cuts, those that the host tool makes in QEMU (default: a tenth of --count)
  --in-guest N   of the cuts, those that fsfreeze-snapshot makes of logical volumes (default: a tenth of --count)
  --recipe R     the guest: ${Object.keys(RECIPES).join(', ')} (default: the first one that has all of --only)
  --kernel K     of user-mode guests: ${KERNEL_VERSIONS.join(', ')} (default 7.2)
  --jobs N       guests at a time (default 2)
  --json         one object as the last line

examples:
  npm run oracle -- --count 40
  npm run oracle -- --only mysql --count 10 --json
  npm run oracle -- --only valkey --recipe debian-13 --count 1 --controls 0`;

function usage(why: string): number {
  console.error(`${why}\n${USAGE}`);
  return 2;
}

const whole = (text: string): number | undefined => (/^\d{1,9}$/.test(text) ? Number(text) : undefined);

/** The recipe that is asked for or has all of `only`; undefined if there is none. */
function recipeOf(asked: string | undefined, only: readonly EngineName[]): RecipeName | undefined {
  return (Object.keys(RECIPES) as RecipeName[]).find((recipe) => {
    const has: readonly EngineName[] = RECIPES[recipe];
    return (asked === undefined || asked === recipe) && only.every((name) => has.includes(name));
  });
}

/** All kinds evenly mixed, so that a part of them shows something of each. */
function plan(seed: number, count: number, inQemu: number, inGuest: number, controls: number): readonly Task[] {
  const kinds: readonly (readonly [Way, LoadKind, number])[] = [
    ['held', 'qemu', inQemu],
    ['held', 'volumes', inGuest],
    ['held', 'user-mode', count - inQemu - inGuest],
    ...CONTROLS.map((way) => [way, 'user-mode', controls] as const),
  ];
  const placed = kinds.flatMap(([way, kind, many]) =>
    Array.from({ length: many }, (_, each) => ({ kind, way, place: (each + 0.5) / many })),
  );
  return placed
    .toSorted((a, b) => a.place - b.place)
    .map(({ kind, way }, index) => ({ kind, draw: { way, seed, index } }));
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      count: { type: 'string', default: '8' },
      only: { type: 'string' },
      seed: { type: 'string', default: '1' },
      controls: { type: 'string' },
      qemu: { type: 'string' },
      'in-guest': { type: 'string' },
      recipe: { type: 'string' },
      kernel: { type: 'string' },
      jobs: { type: 'string', default: '2' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const [count, seed, jobs] = [values.count, values.seed, values.jobs].map(whole);
  if (count === undefined || seed === undefined || jobs === undefined || jobs === 0)
    return usage('--count, --seed, --jobs: expected whole numbers, of --jobs from 1');
  const controls = whole(values.controls ?? String(Math.max(1, Math.floor(count / 8))));
  const inQemu = whole(values.qemu ?? String(Math.floor(count / 10)));
  const inGuest = whole(values['in-guest'] ?? String(Math.floor(count / 10)));
  if (controls === undefined || inQemu === undefined || inGuest === undefined || inQemu + inGuest > count)
    return usage('--controls, --qemu, --in-guest: expected whole numbers, the last two no more than --count together');
  const kernel = KERNEL_VERSIONS.find((each) => each === values.kernel);
  if (kernel === undefined && values.kernel !== undefined) return usage(`--kernel: found ${values.kernel}`);
  const asked = values.only?.split(',') ?? [];
  const only = asked.filter(isEngine);
  if (only.length < asked.length) return usage(`--only: found ${values.only}`);
  const recipe = recipeOf(values.recipe, only);
  if (recipe === undefined) return usage('no recipe of that name has all of them');

  const say = values.json ? console.error : console.log;
  const startMs = performance.now();
  const lab = await makeLab(only.length > 0 ? only : RECIPES[recipe], recipe, kernel);
  const tasks = plan(seed, count, inQemu, inGuest, controls);
  const stop = new AbortController();
  // More than once for one Control-C: whoever started this passes it on as well.
  for (const word of ['SIGINT', 'SIGTERM'] as const)
    process.on(word, () => {
      if (!stop.signal.aborted) say('no more cuts: those that are under way end');
      stop.abort();
    });
  const done = await shareOut(lab, tasks, jobs, stop.signal, say);
  const { table, rows } = summarise(lab.engines, done);
  const isProven =
    done.runs.length === tasks.length && done.runs.every((run) => wrongIn(run, lab.engines).length === 0);
  say(table);
  const tookS = Math.round((performance.now() - startMs) / 1000);
  say(`${done.runs.length} of ${tasks.length} cuts in ${tookS} s; ${done.refused.length} attempts came to nothing`);
  if (values.json) console.log(JSON.stringify({ oracle: recipe, seed, tookS, isProven, rows, ...done }));
  return isProven ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof TypeError && 'code' in error)) throw error;
  process.exitCode = usage(error.message); // parseArgs' own words
}
