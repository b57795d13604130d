// One cell of the matrix for each fault, at its most telling step; all of them: npm run torture -- matrix.
import { beforeAll, expect, test } from 'vitest';
import { requires } from '../../support/requires.js';
import { FAULTS } from './faults.js';
import { labState } from './lab.js';
import { TELLING } from './matrix.js';
import { runPrivateTmp } from './private-tmp.js';
import { runCell } from './runner.js';
import { readable } from './timeline.js';

const BUILD_LIMIT_MS = 500_000;

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
  'gcc',
)('faults', () => {
  beforeAll(labState, BUILD_LIMIT_MS);

  test.for(FAULTS.map((fault) => ({ fault, step: TELLING[fault] })))('$fault at $step', async (cell) => {
    const { complaints, timeline } = await runCell(cell);
    expect(complaints, readable(timeline)).toEqual([]);
  });

  test('agent and freezer SIGKILLed together while the service manager waits for the frozen root', async () => {
    const { complaints, managerWaited } = await runPrivateTmp();
    expect(complaints).toEqual([]);
    expect(managerWaited).toBe(true); // how long it lasts then: README.md
  });
});
