import { mkdirSync, mkdtempSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parseConfiguration } from '../../../src/agent/configuration.js';
import { coordinatorOptions } from '../../../src/agent/freeze-options.js';
import { silentLog } from '../../../src/freeze/options.js';
import { defaultWriterFolders } from '../../../src/freeze/writer-folders.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fsb-options-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const options = (keys = '', fsfreezeHook?: string) => {
  const { bridge } = parseConfiguration(`[bridge]\nruntime-dir=${folder}\n${keys}\n`, 'f');
  return coordinatorOptions({ bridge, ...(fsfreezeHook === undefined ? {} : { fsfreezeHook }) }, silentLog);
};

it('turns seconds into milliseconds and keeps the known folders', () => {
  expect(options('lease-max-s=100\nprepare-budget-s=7\nhold-budget-s=3\nexpedite-rcu=false')).toMatchObject({
    leaseMaxMs: 100_000,
    prepareBudgetMs: 7000,
    holdBudgetMs: 3000,
    expediteRcu: false,
    freezeLimitMs: 8000,
    writerFolders: defaultWriterFolders,
  });
});

it('hands on what is not to be frozen', () => {
  expect(options('include-types=ext4\nexclude-mountpoints=/a,/b/*\nfreeze-limit-ms=500')).toMatchObject({
    freezeLimitMs: 500,
    rules: { includeTypes: ['ext4'], includeMountpoints: [], excludeMountpoints: ['/a', '/b/*'], excludeTypes: [] },
  });
});

it('knows how hooks of each folder are called', () => {
  expect(
    options('writer-folders=/usr/lib/snapshot/writers.d,/opt/qemu/fsfreeze-hook.d,/opt/hooks').writerFolders,
  ).toEqual([
    { path: '/usr/lib/snapshot/writers.d', style: 'dragonsdawn' },
    { path: '/opt/qemu/fsfreeze-hook.d', style: 'qemu' },
    { path: '/opt/hooks', style: 'bridge' },
  ]);
});

it('replaces the stock dispatcher by its folder, once', () => {
  const hook = join(folder, 'fsfreeze-hook');
  writeFileSync(hook, '#!/bin/sh\nFSFREEZE_D=$(dirname -- "$0")/fsfreeze-hook.d\n');
  mkdirSync(`${hook}.d`);
  expect(options('writer-folders=/a', hook).writerFolders).toEqual([
    { path: `${hook}.d`, style: 'qemu' },
    { path: '/a', style: 'bridge' },
  ]);
  expect(options(`writer-folders=/a,${hook}.d`, hook).writerFolders.map(({ path }) => path)).toEqual([
    `${hook}.d`,
    '/a',
  ]);
});

it('makes any other hook a writer of its own, and forgets it when it is no longer given', () => {
  const hook = join(folder, 'my-hook');
  writeFileSync(hook, '#!/bin/sh\n');
  const [own] = options('', hook).writerFolders;
  expect(own).toEqual({ path: join(folder, 'hook.d'), style: 'qemu' });
  expect(readlinkSync(join(folder, 'hook.d/fsfreeze-hook'))).toBe(hook);
  expect(options().writerFolders).toEqual(defaultWriterFolders);
  expect(() => readlinkSync(join(folder, 'hook.d/fsfreeze-hook'))).toThrow('ENOENT');
});
