// What counts as damage of a run: what is in its files, and nothing that went wrong while they were looked at.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Deadline } from '../../../../src/deadline.js';
import { sumFile } from '../../../../src/host/repository/extents.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import type { RunManifest } from '../../../../src/host/repository/run-manifest.js';
import { lastVerdict, Verifier } from '../../../../src/host/repository/verify-run.js';
import { runDisk, runOf } from '../../../support/runs.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

const signal = new AbortController().signal;
let scratchFolder: Scratch;
let folder: VmFolder;
let run: RunManifest;
let file: string;

beforeEach(async () => {
  scratchFolder = scratch();
  folder = new VmFolder(scratchFolder.dir, 'vm');
  run = runOf(1);
  file = `${folder.run(run.run)}/data0.qcow2`;
  mkdirSync(folder.run(run.run), { recursive: true });
  writeFileSync(file, 'abc');
  run = { ...run, disks: [runDisk('data0', { file: { name: 'data0.qcow2', ...(await sumFile(file, { signal })) } })] };
  qemuImg('exit 0');
});
afterEach(() => {
  vi.unstubAllEnvs();
  scratchFolder[Symbol.dispose]();
});

/** A qemu-img that does this. */
function qemuImg(script: string | undefined): void {
  const bin = scratchFolder.path('bin');
  rmSync(bin, { recursive: true, force: true });
  mkdirSync(bin);
  if (script !== undefined) writeFileSync(`${bin}/qemu-img`, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  vi.stubEnv('PATH', bin);
}

const verify = async (limitMs = 60_000) => {
  const options = { deadline: new Deadline(limitMs), signal, key: undefined, onProgress: () => undefined };
  return await new Verifier(folder, [run], options).verify(run);
};

test('a sound one has no problems', async () => {
  expect(await verify()).toMatchObject({ problems: [] });
  expect(await lastVerdict(folder, run.run)).toMatchObject({ problems: [] });
});

test.each([
  [
    'a file that is not there',
    () => {
      rmSync(file);
    },
    'is not there',
  ],
  [
    'another byte',
    () => {
      writeFileSync(file, 'abd');
    },
    '1 extents',
  ],
  [
    'an image that is corrupt',
    () => {
      qemuImg('echo "2 errors were found" >&2; exit 2');
    },
    '2 errors were found',
  ],
  [
    'an image that cannot be opened as one',
    () => {
      qemuImg('echo "not in qcow2 format" >&2; exit 1');
    },
    'not in qcow2',
  ],
])('%s is damage', async (_what, damage, text) => {
  damage();
  const { problems } = await verify();
  expect(problems.join()).toContain(text);
  expect(await lastVerdict(folder, run.run)).toMatchObject({ problems });
});

test.each([
  [
    'no qemu-img',
    () => {
      qemuImg(undefined);
    },
    'E_QEMU_IMG',
  ],
  [
    'an image that somebody has open',
    () => {
      qemuImg('echo "Failed to get shared \\"write\\" lock" >&2; exit 1');
    },
    'E_IN_USE',
  ],
  [
    'no right to read',
    () => {
      qemuImg('echo "Could not open: Permission denied" >&2; exit 1');
    },
    'E_QEMU_IMG',
  ],
  [
    'a qemu-img that was killed',
    () => {
      qemuImg('kill -9 $$');
    },
    'E_QEMU_IMG',
  ],
])('%s says nothing about the run, and is not recorded', async (_what, prepare, code) => {
  await verify();
  prepare();
  await expect(verify()).rejects.toMatchObject({ code });
  expect(await lastVerdict(folder, run.run)).toMatchObject({ problems: [] });
});

test('a time limit ends it at once, and is not recorded', async () => {
  await expect(verify(0)).rejects.toMatchObject({ code: 'E_DEADLINE' });
  qemuImg('exec /bin/sleep 30');
  await expect(verify(500)).rejects.toMatchObject({ code: 'E_QEMU_IMG' });
  expect(await lastVerdict(folder, run.run)).toBeUndefined();
});
