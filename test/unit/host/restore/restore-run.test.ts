// A restore into a folder reads no run that was forgotten while it looked for it.
import { existsSync, readdirSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { forgetRuns } from '../../../../src/host/repository/keep-house.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import { makeRepository } from '../../../../src/host/repository/repository.js';
import { restoreRun } from '../../../../src/host/restore/restore-run.js';
import { holdManifest } from '../../../support/held-manifest.js';
import { runNumbered, runOf, storeRuns } from '../../../support/runs.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let scratchFolder: Scratch;
beforeEach(() => {
  scratchFolder = scratch();
});
afterEach(() => {
  scratchFolder[Symbol.dispose]();
});

test('a run that is forgotten between its finding and its reading is not found any more', async () => {
  const repository = scratchFolder.path('repository');
  await makeRepository(repository);
  const folder = new VmFolder(repository, 'vm');
  storeRuns(folder, runOf(1));
  const read = holdManifest(new VmFolder(repository, 'vm2'), runOf(2));
  const target = scratchFolder.path('restored');
  const options = {
    repository,
    signal: new AbortController().signal,
    onProgress: () => undefined,
    onWarning: () => undefined,
  };
  const restoring = expect(
    restoreRun({
      ...{ ...options, run: runNumbered(1), vm: undefined, target, format: 'qcow2', disks: [] },
      ...{ verify: true, key: undefined, limitMs: 10_000 },
    }),
  ).rejects.toMatchObject({ code: 'E_NO_BACKUP' });
  {
    // The other VM's runs are looked through last.
    await using waiting = await read();
    await forgetRuns({ ...options, runs: [runNumbered(1)], vm: 'vm', lockWaitMs: 0, keep: undefined, dryRun: false });
    expect(existsSync(folder.run(runNumbered(1)))).toBe(false);
    await waiting.go();
  }
  await restoring;
  expect(readdirSync(scratchFolder.dir)).toEqual(['repository']);
  expect(readdirSync(`${repository}/locks`)).toEqual([]);
});
