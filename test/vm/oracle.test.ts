// One cut of MariaDB, Redis and SQLite under load, one whose holds were lost before it, and one that fsfreeze-snapshot
// makes of logical volumes in the guest (`npm run oracle` does many, and more kinds). Of the disks PostgreSQL is proved by
// the demo.
import { describe, expect, test } from 'vitest';
import type { Way } from '../oracle/cut.js';
import type { EngineName } from '../oracle/engines.js';
import { describeRun, wrongIn } from '../oracle/report.js';
import { makeLab, type Lab } from '../oracle/lab.js';
import { loadGuest, run, type LoadKind } from '../oracle/run.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { kernels } from '../support/variants.js';

const SEED = 1;

function databases(kind: Exclude<LoadKind, 'qemu'>, names: readonly EngineName[]) {
  let lab: Lab | undefined;
  const guest = sharedGuest(async () => {
    lab = await makeLab(names, 'debian-12', kernels('7.2')[0]);
    return (await loadGuest(kind, lab)).guest;
  });
  return async (way: Way): Promise<{ readonly wrong: readonly string[]; readonly told: string }> => {
    if (lab === undefined) throw new Error('there is no guest');
    const result = await run({ kind, guest: guest() }, lab, { way, seed: SEED, index: 0 });
    return { wrong: wrongIn(result, lab.engines), told: describeRun(result, lab.engines) };
  };
}

requires(...USER_MODE)('databases under load', () => {
  describe('by their disks', () => {
    const cut = databases('user-mode', ['mariadb', 'redis', 'sqlite']);

    test.for([
      ['held', 'a cut has all that was acknowledged, nothing begun later, and the checkers find nothing'],
      ['lost', 'a hold that ended with its client is found out'],
    ] as const)('%s: %s', async ([way], { annotate }) => {
      const { wrong, told } = await cut(way);
      await annotate(told);
      expect(wrong, told).toEqual([]);
    });
  });

  describe('by a snapshot of logical volumes inside the guest', () => {
    const cut = databases('volumes', ['mariadb', 'postgresql']);

    test('what a command is shown has all that was acknowledged, and nothing begun later', async ({ annotate }) => {
      const { wrong, told } = await cut('held');
      await annotate(told);
      expect(wrong, told).toEqual([]);
    });
  });
});
