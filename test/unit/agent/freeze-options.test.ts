import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { defined } from '../../../src/defined.js';
import { parseConfiguration } from '../../../src/agent/configuration.js';
import { coordinatorOptions } from '../../../src/agent/freeze-options.js';
import { silentLog } from '../../../src/freeze/options.js';
import { defaultWriterFolders } from '../../../src/freeze/writers/folders.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fsb-options-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const options = (keys = '', fsfreezeHook?: string) => {
  const { bridge } = parseConfiguration(`[bridge]\nruntime-dir=${folder}\n${keys}\n`, 'f');
  return coordinatorOptions({ bridge, ...defined({ fsfreezeHook }) }, silentLog);
};

test('turns seconds into milliseconds and keeps the known folders', () => {
  expect(options('lease-max-s=100\nprepare-budget-s=7\nhold-budget-s=3\nexpedite-rcu=false')).toMatchObject({
    leaseMaxMs: 100_000,
    prepareBudgetMs: 7000,
    holdBudgetMs: 3000,
    expediteRcu: false,
    freezeLimitMs: 8000,
    writerFolders: defaultWriterFolders,
  });
});

test('hands on what is not to be frozen', () => {
  expect(options('include-types=ext4\nexclude-mountpoints=/a,/b/*\nfreeze-limit-ms=500')).toMatchObject({
    freezeLimitMs: 500,
    rules: { includeTypes: ['ext4'], includeMountpoints: [], excludeMountpoints: ['/a', '/b/*'], excludeTypes: [] },
  });
});

test('knows how hooks of each folder are called', () => {
  expect(
    options('writer-folders=/usr/lib/snapshot/writers.d,/opt/qemu/fsfreeze-hook.d,/opt/hooks').writerFolders,
  ).toEqual([
    { path: '/usr/lib/snapshot/writers.d', style: 'dragonsdawn' },
    { path: '/opt/qemu/fsfreeze-hook.d', style: 'qemu' },
    { path: '/opt/hooks', style: 'bridge' },
  ]);
});

test('gives a plain freeze what its own keys say', () => {
  expect(options()).toMatchObject({ plainPrepareMs: 5_000, plainHookLimitMs: 10_000, hookFailure: 'refuse' });
  expect(options('plain-prepare-s=2\nplain-hook-s=25\nhold-budget-s=30\nhook-failure=lower')).toMatchObject({
    plainPrepareMs: 2_000,
    plainHookLimitMs: 25_000,
    holdBudgetMs: 30_000,
    hookFailure: 'lower',
  });
  expect(() => options('plain-hook-s=20')).toThrow(
    'f: [bridge] plain-hook-s: expected at most hold-budget-s (15 s), which bounds all hooks together, found 20',
  );
  expect(options('hold-budget-s=3')).toMatchObject({ holdBudgetMs: 3_000 });
  expect(() => options('hook-failure=ignore')).toThrow('expected one of refuse, lower, found "ignore"');
});

test('puts the hook of -F before the folders', () => {
  expect(options('writer-folders=/a', '/opt/backup/hook.sh').writerFolders).toEqual([
    { path: '/opt/backup', only: 'hook.sh', style: 'qemu' },
    { path: '/a', style: 'bridge' },
  ]);
});
