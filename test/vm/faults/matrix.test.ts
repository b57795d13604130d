// One cell of the matrix for each fault, at its most telling step, in the guest that it needs; all of them: npm run torture -- matrix.
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { GuestKind } from '../../../src/testing/index.js';
import { requires, USER_MODE } from '../../support/requires.js';
import { FAULTS } from './faults.js';
import { GuestKeeper } from './guest-keeper.js';
import { prepareLabs } from './lab.js';
import { ALSO_IN_QEMU, runOf, TELLING, type CellRun } from './matrix.js';
import { runPrivateTmp } from './private-tmp.js';
import { runCell } from './runner.js';
import { readable } from './timeline.js';

const BUILD_LIMIT_MS = 500_000;

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
  'gcc',
  ...USER_MODE,
)('faults', () => {
  const keepers: Readonly<Record<GuestKind, GuestKeeper>> = {
    'user-mode': new GuestKeeper('user-mode'),
    qemu: new GuestKeeper('qemu'),
  };
  beforeAll(prepareLabs, BUILD_LIMIT_MS);
  afterAll(async () => {
    for (const keeper of Object.values(keepers)) await keeper[Symbol.asyncDispose]();
  });

  const cells: readonly CellRun[] = [
    ...FAULTS.map((fault) => runOf({ fault, step: TELLING[fault] })),
    ALSO_IN_QEMU,
  ].sort((a, b) => a.kind.localeCompare(b.kind)); // one guest waits for nobody while the other one works
  test.for(cells)('$fault at $step in a $kind guest', async (cell) => {
    const { complaints, timeline } = await runCell(cell, keepers[cell.kind]);
    expect(complaints, readable(timeline)).toEqual([]);
  });

  test('agent and freezer SIGKILLed together while the service manager waits for the frozen root', async () => {
    const { complaints, managerWaited } = await runPrivateTmp();
    expect(complaints).toEqual([]);
    expect(managerWaited).toBe(true); // how long it lasts then: README.md
  });
});
