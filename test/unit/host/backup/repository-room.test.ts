// Whether a repository has room for a backup.
import { expect, test } from 'vitest';
import { checkRepositoryRoom } from '../../../../src/host/backup/backup-plan.js';

const MIB = 1024 * 1024;
const check = (free: number, compression: 'zstd' | undefined): readonly string[] => {
  const told: string[] = [];
  const onProgress = (text: string): number => told.push(text);
  checkRepositoryRoom(
    '/repo',
    { free: free * MIB, needed: 600 * MIB },
    { compression, minFreeBytes: 100 * MIB, onProgress },
  );
  return told;
};

test('is there, or it is said what is missing', () => {
  expect(check(600, undefined)).toEqual([]);
  expect(() => check(599, undefined)).toThrow('no space for the backup in /repo: 599 MiB free, expected 600 MiB');
});

test('may do for what is compressed, and that is told', () => {
  expect(check(600, 'zstd')).toEqual([]);
  expect(check(100, 'zstd')).toEqual([expect.stringContaining('uncompressed it is 600 MiB')]);
  expect(() => check(99, 'zstd')).toThrow('99 MiB free, expected 600 MiB');
});
