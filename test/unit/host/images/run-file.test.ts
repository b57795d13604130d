// How files of backup runs are told from other images.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { runFileAmong } from '../../../../src/host/images/run-file.js';
import { scratch } from '../../../support/scratch.js';

const RUN = '20261129T120000Z-0a1b2c3d';

test('by the run, and by the repository around it', async () => {
  using folder = scratch();
  mkdirSync(folder.path('vm'));
  writeFileSync(folder.path('repository.json'), '{}');
  const file = folder.path(`vm/${RUN}/disk0.qcow2`);
  const others = ['/images/disk0.qcow2', folder.path('vm/other/disk0.qcow2'), 'nbd://host/disk0', 'disk0.qcow2'];
  expect(await runFileAmong([...others, file])).toEqual({ file, run: RUN, repository: folder.dir });
  expect(await runFileAmong(others)).toBeUndefined();
  rmSync(folder.path('repository.json'));
  expect(await runFileAmong([file])).toBeUndefined();
});
