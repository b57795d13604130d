// Which runs `forget --keep` forgets: never the last sound one for a damaged one. And that forgetting takes nothing from who reads,
// whoever comes first.
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { findRun } from '../../../../src/host/repository/find-run.js';
import { markForgotten } from '../../../../src/host/repository/forget-run.js';
import { forgetRuns, recoverRepository, verifyRuns } from '../../../../src/host/repository/keep-house.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import { lockForReading } from '../../../../src/host/repository/repository-lock.js';
import { makeRepository, type Repository } from '../../../../src/host/repository/repository.js';
import type { RunManifest } from '../../../../src/host/repository/run-manifest.js';
import { holdManifest } from '../../../support/held-manifest.js';
import { runNumbered, runOf, storeRuns } from '../../../support/runs.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let scratchFolder: Scratch;
let repository: Repository;
let folder: VmFolder;
beforeEach(async () => {
  scratchFolder = scratch();
  repository = await makeRepository(scratchFolder.dir);
  folder = new VmFolder(scratchFolder.dir, 'vm');
});
afterEach(() => {
  scratchFolder[Symbol.dispose]();
});

const store = (...runs: readonly RunManifest[]): void => {
  storeRuns(folder, ...runs);
};
const damaged = (...numbers: readonly number[]): void => {
  mkdirSync(`${folder.path}/verified`, { recursive: true });
  for (const number of numbers) {
    const run = runNumbered(number);
    const verdict = { format: 1, run, verifiedAt: '2026-01-02T00:00:00.000Z', problems: ['it is damaged'] };
    writeFileSync(folder.verified(run), JSON.stringify(verdict));
  }
};
const house = (signal = new AbortController().signal) => ({
  repository: scratchFolder.dir,
  vm: undefined,
  lockWaitMs: 0,
  signal,
  onProgress: () => undefined,
  onWarning: () => undefined,
});
const forgotten = async (keep: number): Promise<readonly string[]> => {
  const found = await forgetRuns({ ...house(), runs: [], keep, dryRun: true });
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

const [first = '', second = ''] = numbers(1, 2);
const isThere = (run: string): boolean => existsSync(folder.run(run));
const isMarked = (run: string): boolean => existsSync(folder.forgotten(run));
const marked = async (): Promise<void> => {
  await vi.waitFor(
    () => {
      expect(isMarked(first)).toBe(true);
    },
    { timeout: 5000 },
  );
};
const reader = () => lockForReading(repository, 'vm', { ...house(), operation: 'backup verify' });
const forget = { runs: [first], keep: undefined, dryRun: false };

test('who comes while a forgotten run waits for its readers does not find it', async () => {
  store(runOf(1), runOf(2));
  const reading = await reader();
  const forgetting = forgetRuns({ ...house(), ...forget, lockWaitMs: 10_000 });
  try {
    await marked();
    expect(isThere(first)).toBe(true);
    await expect(findRun(repository, first, 'vm')).rejects.toMatchObject({ code: 'E_NO_BACKUP' });
  } finally {
    await reading[Symbol.asyncDispose]();
  }
  expect(await forgetting).toMatchObject([{ forgotten: [first], removed: [first] }]);
  expect([isThere(first), isMarked(first)]).toEqual([false, false]);
});

test.each([
  ['has no time to wait for readers', 0, 'E_REPOSITORY_BUSY'],
  ['waits for readers in vain', 150, 'E_REPOSITORY_BUSY'],
  ['is interrupted while it waits for readers', 10_000, 'E_INTERRUPTED'],
])('a forgetting that %s has done nothing', async (_what, lockWaitMs, code) => {
  store(runOf(1), runOf(2));
  await using reading = await reader();
  const stop = new AbortController();
  const forgetting = forgetRuns({ ...house(stop.signal), ...forget, lockWaitMs });
  const refused = expect(forgetting).rejects.toMatchObject({ code });
  if (code === 'E_INTERRUPTED') {
    await marked();
    stop.abort('SIGINT');
  }
  await refused;
  expect((await findRun(repository, first, 'vm')).manifest.run).toBe(first);
  expect(isThere(first)).toBe(true);
  await reading.check();
});

test('one that loses its lock while it waits leaves the runs to who has it, and says how they are', async () => {
  store(runOf(1), runOf(2));
  const reading = await reader();
  const forgetting = forgetRuns({ ...house(), ...forget, lockWaitMs: 10_000 });
  const refused = expect(forgetting).rejects.toMatchObject({
    code: 'E_REPOSITORY_BUSY',
    message: expect.stringMatching(
      new RegExp(`^not removed, but perhaps no longer shown .*${first}; .* was lost`),
    ) as string,
  });
  await marked();
  writeFileSync(`${scratchFolder.dir}/locks/vm.json`, '{}');
  await reading[Symbol.asyncDispose]();
  await refused;
  expect([isThere(first), isMarked(first)]).toEqual([true, true]);
});

test('one that was killed before it removed is gone on with by recover, when nobody reads', async () => {
  store(runOf(1), runOf(2));
  await markForgotten(folder, [first]);
  {
    await using reading = await reader();
    expect(await recoverRepository({ ...house(), dryRun: false })).toMatchObject([{ status: 'busy' }]);
    await reading.check();
  }
  expect(isThere(first)).toBe(true);
  expect(await recoverRepository({ ...house(), dryRun: false })).toMatchObject([{ status: 'done' }]);
  expect([isThere(first), isMarked(first), isThere(second)]).toEqual([false, false, true]);
});

test.each([
  ['verified', () => verifyRuns({ ...house(), runs: [first], needsKey: false, key: undefined, limitMs: 10_000 })],
  ['forgotten', () => forgetRuns({ ...house(), ...forget })],
])('a run that is removed before it is locked to be %s is not found any more', async (_what, act) => {
  store(runOf(1));
  // The other VM's runs are looked through last.
  const read = holdManifest(new VmFolder(scratchFolder.dir, 'vm2'), runOf(2));
  const refused = expect(act()).rejects.toMatchObject({ code: 'E_NO_BACKUP' });
  {
    await using waiting = await read();
    await forgetRuns({ ...house(), ...forget, vm: 'vm' });
    await waiting.go();
  }
  await refused;
  expect(readdirSync(folder.forgotten())).toEqual([]);
});
