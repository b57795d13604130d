// Files that are held from before they are written to.
import { open, rename, type FileHandle } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { HeldFiles } from '../../../../src/host/backup/held-files.js';
import { scratch } from '../../../support/scratch.js';

const signal = new AbortController().signal;

test('are synced by the handle that was open, and closed once', async () => {
  using folder = scratch();
  const files = new HeldFiles();
  const handle = await open(folder.path('a'), 'wx');
  files.hold(folder.path('a'), handle);
  await files.sync(signal);
  // Whatever has its name by then.
  await rename(folder.path('a'), folder.path('b'));
  await files.sync(signal);
  await files.close();
  await files.close();
  await expect(handle.stat()).rejects.toThrow();
});

test('tell what is lost, and do not keep an interruption waiting', async () => {
  const failing = { sync: () => Promise.reject(new Error('EIO')) } as unknown as FileHandle;
  const files = new HeldFiles();
  files.hold('/repo/a.qcow2', failing);
  await expect(files.sync(signal)).rejects.toMatchObject({ code: 'E_BACKUP' });
  const hanging = new HeldFiles();
  hanging.hold('/repo/a.qcow2', { sync: () => new Promise(() => undefined) } as unknown as FileHandle);
  const controller = new AbortController();
  setTimeout(() => {
    controller.abort('SIGTERM');
  }, 20);
  await expect(hanging.sync(controller.signal)).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
});
