// Which files of this host a record may name for a guest, and which files of a run are taken.
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { withHostFiles } from '../../../../src/host/boot/host-files.js';
import { readSavedFile } from '../../../../src/host/boot/saved-file.js';
import type { MachineFacts } from '../../../../src/host/vm/machine-facts.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

const facts: MachineFacts = {
  ...{ format: 1, arch: 'x86_64', machine: 'q35', cpu: 'max', cpus: 1, memoryBytes: 1, flash: [], disks: [] },
};
let at: Scratch;
let run: string;
let kernel: string;
beforeEach(() => {
  at = scratch();
  run = join(at.dir, 'run');
  mkdirSync(run, { mode: 0o750 });
  kernel = join(at.dir, 'vmlinuz');
  writeFileSync(kernel, 'kernel');
});
afterEach(() => {
  at[Symbol.dispose]();
});

test('a file of this host is given to a guest if nobody else may have named it', async () => {
  expect(await withHostFiles({ ...facts, kernel }, [], [run])).toMatchObject({ kernel });
  const missing = withHostFiles({ ...facts, kernel: '/nonesuch' }, [], [run]);
  await expect(missing).rejects.toThrow('/nonesuch, with which the guest was started, is not on this host');
  await expect(withHostFiles({ ...facts, initrd: 'initrd' }, [], [run])).rejects.toThrow('expected an absolute path');
});

test.each([
  ['a kernel', (file: string): Partial<MachineFacts> => ({ kernel: file }), '-kernel'],
  ['a first root', (file: string): Partial<MachineFacts> => ({ initrd: file }), '-kernel'],
  ['a firmware', (file: string): Partial<MachineFacts> => ({ firmware: file }), '-bios'],
  [
    'a firmware in flash',
    (file: string): Partial<MachineFacts> => ({ flash: [{ file, format: 'raw', readOnly: true }] }),
    '-bios',
  ],
])('%s that others may have named is refused, until the user names one', async (_what, naming, option) => {
  chmodSync(run, 0o777);
  const named = { ...facts, ...naming(kernel) };
  await expect(withHostFiles(named, [], [at.dir, run])).rejects.toMatchObject({
    code: 'E_BOOT',
    message: expect.stringMatching(new RegExp(`others may change .* has mode 777.*${option}`)) as string,
  });
  expect(JSON.stringify(await withHostFiles(named, [option, '/mine'], [run]))).not.toContain(kernel);
});

test("QEMU's own firmware has a bare name, and variables are copies: neither is a file of this host", async () => {
  chmodSync(run, 0o777);
  const own = { ...facts, firmware: 'bios-256k.bin' };
  expect(await withHostFiles(own, [], [run])).toMatchObject(own);
  const variables = { ...facts, flash: [{ file: '/vars.fd', format: 'raw', readOnly: false }] };
  expect(await withHostFiles(variables, [], [run])).toMatchObject(variables);
  // The working directory of a test is that of this project.
  await expect(withHostFiles({ ...facts, firmware: 'package.json' }, [], [run])).rejects.toThrow('working directory');
});

const entry = (name: string, text: string) => ({
  ...{ name, what: '', size: text.length, sha256: createHash('sha256').update(text).digest('hex') },
  ...({ copied: 'after the cut', copiedAt: '' } as const),
});

test('a file of the run is taken with the right sum alone, and neither through a link nor from a pipe', async () => {
  writeFileSync(join(run, 'plain'), 'kernel');
  expect((await readSavedFile(run, entry('plain', 'kernel'))).toString()).toBe('kernel');
  await expect(readSavedFile(run, entry('plain', 'KERNEL'))).rejects.toThrow('is not what was saved');
  await expect(readSavedFile(run, entry('plain', 'longer than that'))).rejects.toMatchObject({ code: 'E_BOOT' });
  symlinkSync(kernel, join(run, 'link'));
  symlinkSync(at.dir, join(run, 'folder'));
  for (const name of ['link', 'folder/vmlinuz', '../vmlinuz', 'nonesuch']) {
    await expect(readSavedFile(run, entry(name, 'kernel'))).rejects.toMatchObject({ code: 'E_BOOT' });
  }
});
