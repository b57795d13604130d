import { afterAll, expect, test } from 'vitest';
import { existsSync, writeFileSync } from 'node:fs';
import { mustRun, runProgram, runWithin, SEARCH_PATH } from '../../../src/snapshot/program.js';
import { scratch } from '../../support/scratch.js';

const folder = scratch();
afterAll(() => {
  folder[Symbol.dispose]();
});

test('what a program says and how it ends is told', async () => {
  expect(await runProgram(['sh', '-c', 'echo o; echo e >&2; exit 3'])).toEqual({
    exitCode: 3,
    stdout: 'o',
    stderr: 'e',
  });
  await expect(mustRun(runProgram, ['sh', '-c', 'echo WARNING: w >&2; echo why >&2; exit 3'])).rejects.toThrow(
    'exit code 3: why',
  );
  await expect(runProgram(['no-such-tool'])).rejects.toThrow('no-such-tool: it is not installed');
});

test('what does not end in time is killed', async () => {
  await expect(runWithin({ limitMs: 100 }, ['sleep', '5'])).rejects.toThrow('sleep 5: no end within 0.1 s');
});

test('a change of volumes that does not end in time goes on to its end, whatever it says, and that is told', async () => {
  const done = folder.path('done');
  writeFileSync(folder.path('lvm'), '#!/bin/sh\nsleep 0.5; echo said; echo said >&2; : >"$2"\n', { mode: 0o755 });
  const searchPath = `${folder.dir}:${SEARCH_PATH}`;
  const change = runWithin({ limitMs: 100, searchPath }, ['lvm', 'lvremove', done]);
  await expect(change).rejects.toThrow(/^lvm lvremove \S+: no end within 0.1 s: it goes on as process \d+/);
  await expect.poll(() => existsSync(done), { timeout: 5_000 }).toBe(true);
});
