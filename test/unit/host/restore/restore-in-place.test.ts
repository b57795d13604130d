// A restore in place says that it reads the VM's runs before it looks for one: what it has found stays.
import { mkdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import { waitForReaders } from '../../../../src/host/repository/repository-lock.js';
import { makeRepository } from '../../../../src/host/repository/repository.js';
import { restoreInPlace } from '../../../../src/host/restore/restore-in-place.js';
import { socketAt } from '../../../../src/host/vm/place.js';
import { holdManifest } from '../../../support/held-manifest.js';
import { runNumbered, runOf, storeRuns } from '../../../support/runs.js';
import { scratch } from '../../../support/scratch.js';

const uuid = '7c9f0f6e-5a0f-4a55-9b54-3c8d6f3d0001';

test('no run is removed from the moment it is looked for', async () => {
  using folder = scratch();
  const repository = await makeRepository(folder.path('repository'));
  const stored = new VmFolder(repository.path, uuid);
  storeRuns(stored, runOf(1));
  const read = holdManifest(stored, runOf(2));
  const stateDir = folder.path('state');
  mkdirSync(`${stateDir}/${uuid}`, { recursive: true });
  const signal = new AbortController().signal;
  const quiet = { signal, onProgress: () => undefined, onWarning: () => undefined };
  const vm = { name: 'vm', monitor: socketAt(folder.path('qmp.sock')), identity: { kind: 'uuid', uuid } } as const;
  const restoring = expect(
    restoreInPlace({
      ...{ ...quiet, lock: { ...quiet, stateDir, vm, operation: 'restore', waitMs: 0 }, monitorTimeoutMs: 1000 },
      ...{ repository: repository.path, run: runNumbered(1), disks: [], images: new Map(), verify: true },
      ...{ key: undefined, dryRun: false, limitMs: 10_000, confirm: () => Promise.resolve(true) },
    }),
    // This host knows nothing of its images.
  ).rejects.toMatchObject({ code: 'E_NEWEST_UNKNOWN' });
  {
    await using waiting = await read();
    const removing = { operation: 'backup forget', waitMs: 0, signal };
    await expect(waitForReaders(repository, uuid, removing)).rejects.toMatchObject({ code: 'E_REPOSITORY_BUSY' });
    await waiting.go();
  }
  await restoring;
});
