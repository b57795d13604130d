// A run in the making appears whole, and only if whoever makes it still may.
import { chmodSync, existsSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { UsageError } from '../../../../src/errors.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import { RunDraft } from '../../../../src/host/repository/run-draft.js';
import { requires } from '../../../support/requires.js';
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

requires('root')('a filesystem that lets nobody say whose a file is', () => {
  test('has it published for reading, and its group gains no right', async () => {
    using scratchFolder = scratch();
    chmodSync(scratchFolder.dir, 0o777);
    const folder = new VmFolder(scratchFolder.dir, 'vm');
    const manifest = runOf(1);
    // As an export that squashes root: what is made is somebody else's than who made it.
    process.seteuid?.(65_534);
    try {
      const draft = await RunDraft.begin(folder, manifest.run);
      for (const mode of [0o600, 0o660, 0o644]) {
        writeFileSync(`${draft.path}/${mode.toString(8)}`, 'abc');
        chmodSync(`${draft.path}/${mode.toString(8)}`, mode);
      }
      await draft.publish(manifest, () => Promise.resolve());
    } finally {
      process.seteuid?.(0);
    }
    const modes = ['600', '660', '644'].map((name) => statSync(`${folder.run(manifest.run)}/${name}`).mode & 0o777);
    expect(modes).toEqual([0o400, 0o440, 0o440]);
  });
});
