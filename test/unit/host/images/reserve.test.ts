// Space that is taken before it is written.
import { statSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { releaseSpace, reserveSpace } from '../../../../src/host/images/reserve.js';
import { scratch } from '../../../support/scratch.js';

const MIB = 1024 * 1024;

test('is taken without a change of the size, and given back', async () => {
  using folder = scratch();
  const file = folder.path('a');
  writeFileSync(file, Buffer.alloc(1000, 1));
  expect(await reserveSpace(file, 4 * MIB)).toBe(true);
  expect(statSync(file).size).toBe(1000);
  expect(statSync(file).blocks * 512).toBeGreaterThanOrEqual(4 * MIB);
  await releaseSpace(file);
  expect(statSync(file).size).toBe(1000);
  expect(statSync(file).blocks * 512).toBeLessThan(MIB);
});
