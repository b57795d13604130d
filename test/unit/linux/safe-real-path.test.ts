// Symbolic links are followed, but not into what may not answer.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { safeRealPath } from '../../../src/linux/safe-real-path.js';
import type { MountTable } from '../../../src/linux/mounts.js';
import { tableOf } from '../../support/mount-table.js';

let dir: string;
let table: MountTable;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-real-'));
  table = tableOf(`20 1 8:1 / / rw - ext4 /dev/sda1 rw\n21 20 0:40 / ${dir}/nfs rw - nfs4 server:/ rw\n`);
  for (const folder of ['nfs/data', 'local/data']) mkdirSync(join(dir, folder), { recursive: true });
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

test('links are followed, relative and absolute, through folders that are links', () => {
  symlinkSync('local', join(dir, 'relative'));
  symlinkSync(join(dir, 'relative/../local/data'), join(dir, 'absolute'));
  expect(safeRealPath(`${dir}/relative/data/x`, table)).toBe(`${dir}/local/data/x`);
  expect(safeRealPath(`${dir}/absolute//new/`, table)).toBe(`${dir}/local/data/new`);
});

test('nothing on a network mount is looked at: a link there stays one', () => {
  symlinkSync('data', join(dir, 'nfs/link'));
  symlinkSync('nfs', join(dir, 'way'));
  expect(safeRealPath(`${dir}/nfs/link/x`, table)).toBe(`${dir}/nfs/link/x`);
  expect(safeRealPath(`${dir}/way/link`, table)).toBe(`${dir}/nfs/link`);
});

test('links in a circle lead nowhere, and end', () => {
  symlinkSync('b', join(dir, 'a'));
  symlinkSync('a', join(dir, 'b'));
  expect(safeRealPath(`${dir}/a/x`, table)).toBe(`${dir}/a/x`);
});
