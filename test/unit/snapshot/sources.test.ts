import { mkdirSync, realpathSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readSources } from '../../../src/snapshot/sources.js';
import type { MountTable } from '../../../src/linux/mounts.js';
import { tableOf } from '../../support/mount-table.js';
import { scratch, type Scratch } from '../../support/scratch.js';

// The paths must be there, since links in them are followed: they lie below a folder of the test's.
let folder: Scratch;
let top: string;
let table: MountTable;
beforeEach(() => {
  folder = scratch();
  for (const name of ['a/b', 'a/tmp', 'a/nfs', 'plain']) mkdirSync(folder.path(name), { recursive: true });
  symlinkSync(folder.path('a'), folder.path('link'));
  top = realpathSync(folder.path('.'));
  table = tableOf(`1 1 8:1 / / rw - ext4 /dev/sda1 rw
2 1 254:1 / ${top}/a rw - ext4 /dev/mapper/vg-a rw
3 2 254:2 /inner ${top}/a/b rw - xfs /dev/mapper/vg-b rw
4 2 0:40 / ${top}/a/tmp rw - tmpfs tmpfs rw
5 2 0:41 / ${top}/a/nfs rw - nfs4 server:/x rw
6 1 0:42 / /proc rw - proc proc rw
7 6 0:43 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
8 1 0:44 / /dev rw - devtmpfs dev rw
9 8 0:45 / /dev/shm rw - tmpfs tmpfs rw
`);
});
afterEach(() => {
  folder[Symbol.dispose]();
});

const seen = (paths: readonly string[], extent: 'trees' | 'whole-mounts') =>
  readSources(paths, table, extent).map(({ at, inside }) => ({
    at: at.replace(top, 'TOP'),
    inside: inside.replace(top, 'TOP'),
  }));

describe('paths as trees', () => {
  test('stand for their mounts with all that is mounted below them, be it data of a block device or not', () => {
    expect(seen([join(top, 'a')], 'trees')).toEqual([
      { at: 'TOP/a', inside: '/' },
      { at: 'TOP/a/b', inside: '/inner' },
      { at: 'TOP/a/nfs', inside: '/' },
      { at: 'TOP/a/tmp', inside: '/' },
    ]);
    const [, , nfs, tmp] = readSources([join(top, 'a')], table, 'trees');
    expect([nfs?.filesystem, nfs?.isFleeting, tmp?.isFleeting]).toEqual([undefined, undefined, true]);
  });

  test('leave to the root what is on it of the kernel or in memory', () => {
    const places = readSources(['/'], table, 'trees').map(({ at }) => at);
    expect(places).toEqual(['/', ...['', '/b', '/nfs', '/tmp'].map((name) => `${top}/a${name}`)]);
  });

  test('of the root filesystem stand for themselves alone, and links are followed', () => {
    expect(seen([join(top, 'plain'), join(top, 'link/b')], 'trees')).toEqual([
      { at: 'TOP/a/b', inside: '/inner' },
      { at: 'TOP/plain', inside: 'TOP/plain' },
    ]);
    expect(seen(['/'], 'trees')[0]).toEqual({ at: '/', inside: '/' });
  });
});

test('paths as mounts stand for the mount each lies on, once, without what is below', () => {
  expect(seen([join(top, 'a'), join(top, 'a/'), join(top, 'plain')], 'whole-mounts')).toEqual([
    { at: '/', inside: '/' },
    { at: 'TOP/a', inside: '/' },
  ]);
});

test.each([
  ['etc', "expected an absolute path, found 'etc'"],
  ['/srv/../etc', 'expected a path without .., found /srv/../etc'],
  ['/not-there', '/not-there cannot be looked up: ENOENT'],
])('%s is refused', (path, message) => {
  expect(() => readSources([path], table, 'trees')).toThrow(message);
});

test('what is no data on a block device has no filesystem to cut', () => {
  expect(readSources([join(top, 'a/tmp')], table, 'trees')[0]?.filesystem).toBeUndefined();
});
