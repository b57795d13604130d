// How the result of a boot test is kept beside its run.
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { lastBootVerdict, recordBoot, type BootVerdict } from '../../../../src/host/repository/boot-verdict.js';
import { removeRuns } from '../../../../src/host/repository/forget-run.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import { faultOf } from '../../../../src/host/repository/run-faults.js';
import { runNumbered } from '../../../support/runs.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let scratchFolder: Scratch;
let folder: VmFolder;
const run = runNumbered(1);
const failed: BootVerdict = {
  ...{ format: 1, run, bootedAt: '2026-01-02T00:00:00.000Z', accelerator: 'tcg', testMs: 5 },
  ...{ checks: [], problems: ['the guest ended'], notes: [] },
};
const log = Buffer.from('Kernel panic');

beforeEach(() => {
  scratchFolder = scratch();
  folder = new VmFolder(scratchFolder.dir, 'vm');
  mkdirSync(folder.run(run), { recursive: true });
});
afterEach(() => {
  scratchFolder[Symbol.dispose]();
});

test('the newest counts, with what was seen of it, and nothing of the one before', async () => {
  expect(await faultOf(folder, run)).toBeUndefined();
  const first = await recordBoot(folder, failed, { screen: Buffer.from('png'), console: log });
  expect(first).toEqual({ screenshot: folder.booted(run, 'png'), console: folder.booted(run, 'log') });
  expect(readFileSync(first.console ?? '', 'utf8')).toBe('Kernel panic');
  // The console of a guest may tell what is nobody else's business.
  expect(statSync(first.console ?? '').mode & 0o007).toBe(0);
  expect(await lastBootVerdict(folder, run)).toEqual(failed);
  expect(await faultOf(folder, run)).toBe('failed its boot test (the guest ended)');

  const second = await recordBoot(folder, { ...failed, problems: [], agentMs: 3 }, { screen: undefined, console: log });
  expect(second).toEqual({ console: folder.booted(run, 'log') });
  expect(existsSync(folder.booted(run, 'png'))).toBe(false);
  expect(await faultOf(folder, run)).toBeUndefined();
});

test('goes with its run', async () => {
  await recordBoot(folder, failed, { screen: Buffer.from('png'), console: log });
  await removeRuns(folder, [run]);
  for (const ending of ['json', 'png', 'log'] as const) expect(existsSync(folder.booted(run, ending))).toBe(false);
});

test('that cannot be written is told with the error, and leaves no draft', async () => {
  mkdirSync(folder.booted(run, 'json'), { recursive: true });
  await expect(recordBoot(folder, failed, { screen: undefined, console: log })).rejects.toMatchObject({
    code: 'E_WRITE',
    message: expect.stringContaining(`run ${run} failed its boot test (the guest ended), which could not be`) as string,
  });
  expect(readdirSync(`${folder.path}/booted`).filter((name) => name.endsWith('.tmp'))).toEqual([]);
});

test('goes through no link that others put where its draft will be', async () => {
  const other = scratchFolder.path('other');
  writeFileSync(other, 'untouched');
  mkdirSync(`${folder.path}/booted`);
  symlinkSync(other, `${folder.booted(run, 'log')}.${process.pid}.tmp`);
  await recordBoot(folder, failed, { screen: undefined, console: log });
  expect(readFileSync(other, 'utf8')).toBe('untouched');
  expect(readFileSync(folder.booted(run, 'log'), 'utf8')).toBe('Kernel panic');
});
