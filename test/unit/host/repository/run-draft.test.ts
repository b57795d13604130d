// A run in the making appears whole, and only if whoever makes it still may.
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { UsageError } from '../../../../src/errors.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import { RunDraft } from '../../../../src/host/repository/run-draft.js';
import { runOf } from '../../../support/runs.js';
import { scratch } from '../../../support/scratch.js';

test('is looked at last, when all is sealed, and does not appear if the lock is lost', async () => {
  using scratchFolder = scratch();
  const folder = new VmFolder(scratchFolder.dir, 'vm');
  const manifest = runOf(1);
  const draft = await RunDraft.begin(folder, manifest.run);
  writeFileSync(`${draft.path}/data0.qcow2`, 'abc', { mode: 0o600 });
  const modes: number[] = [];
  const lost = draft.publish(manifest, () => {
    modes.push(statSync(`${draft.path}/data0.qcow2`).mode & 0o777);
    return Promise.reject(new UsageError('E_REPOSITORY_BUSY', 'the lock was lost'));
  });
  await expect(lost).rejects.toMatchObject({ code: 'E_REPOSITORY_BUSY' });
  expect(modes).toEqual([0o440]);
  expect(existsSync(folder.run(manifest.run))).toBe(false);
  await draft.publish(manifest, () => Promise.resolve());
  expect(existsSync(folder.run(manifest.run))).toBe(true);
});
