// One cut of MariaDB, Redis and SQLite under load, and one whose holds were lost before it (`npm run oracle` does many, and
// more kinds). PostgreSQL is proved by the demo.
import { expect, test } from 'vitest';
import { describeRun, wrongIn } from '../oracle/report.js';
import { makeLab, type Lab } from '../oracle/lab.js';
import { loadGuest, run } from '../oracle/run.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { kernels } from '../support/variants.js';

const SEED = 1;

requires(...USER_MODE)('databases under load', () => {
  let lab: Lab | undefined;
  const guest = sharedGuest(async () => {
    lab = await makeLab(['mariadb', 'redis', 'sqlite'], 'debian-12', kernels('7.2')[0]);
    return await loadGuest('user-mode', lab);
  });

  test.for([
    ['held', 'a cut has all that was acknowledged, nothing begun later, and the checkers find nothing'],
    ['lost', 'a hold that ended with its client is found out'],
  ] as const)('%s: %s', async ([way], { annotate }) => {
    if (lab === undefined) throw new Error('there is no guest');
    const result = await run(guest(), lab, { way, seed: SEED, index: 0 });
    await annotate(describeRun(result, lab.engines));
    expect(wrongIn(result, lab.engines), describeRun(result, lab.engines)).toEqual([]);
  });
});
