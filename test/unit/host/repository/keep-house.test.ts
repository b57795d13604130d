// Which runs `forget --keep` forgets: never the last sound one for a damaged one.
import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { forgetRuns } from '../../../../src/host/repository/keep-house.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import { makeRepository } from '../../../../src/host/repository/repository.js';
import type { RunManifest } from '../../../../src/host/repository/run-manifest.js';
import { runNumbered, runOf } from '../../../support/runs.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let scratchFolder: Scratch;
let folder: VmFolder;
beforeEach(async () => {
  scratchFolder = scratch();
  await makeRepository(scratchFolder.dir);
  folder = new VmFolder(scratchFolder.dir, 'vm');
});
afterEach(() => {
  scratchFolder[Symbol.dispose]();
});

const store = (...runs: readonly RunManifest[]): void => {
  for (const manifest of runs) {
    mkdirSync(folder.run(manifest.run), { recursive: true });
    writeFileSync(`${folder.run(manifest.run)}/manifest.json`, JSON.stringify(manifest));
  }
};
const damaged = (...numbers: readonly number[]): void => {
  mkdirSync(`${folder.path}/verified`, { recursive: true });
  for (const number of numbers) {
    const run = runNumbered(number);
    const verdict = { format: 1, run, verifiedAt: '2026-01-02T00:00:00.000Z', problems: ['it is damaged'] };
    writeFileSync(folder.verified(run), JSON.stringify(verdict));
  }
};
const forgotten = async (keep: number): Promise<readonly string[]> => {
  const found = await forgetRuns({
    repository: scratchFolder.dir,
    vm: undefined,
    lockWaitMs: 0,
    signal: new AbortController().signal,
    onProgress: () => undefined,
    onWarning: () => undefined,
    runs: [],
    keep,
    dryRun: true,
  });
  return found.flatMap((each) => each.forgotten);
};
const numbers = (...wanted: readonly number[]): string[] => wanted.map(runNumbered);

test('all but the newest, where no damage is known', async () => {
  store(runOf(1), runOf(2), runOf(3));
  expect(await forgotten(1)).toEqual(numbers(1, 2));
  expect(await forgotten(3)).toEqual([]);
  expect(await forgotten(4)).toEqual([]);
});

test('a damaged one does not count, nor does one that lies on it, or on what is not there', async () => {
  store(runOf(1), runOf(2), runOf(3), runOf(4, 3), runOf(6, 5));
  damaged(3);
  expect(await forgotten(1)).toEqual(numbers(1));
  expect(await forgotten(2)).toEqual([]);
  damaged(1, 2);
  expect(await forgotten(1)).toEqual([]);
});
