// The space that the files of a backup may take.
import { expect, test } from 'vitest';
import { imageBytes } from '../../../../src/host/backup/backup-targets.js';

const KIB = 1024;
const GIB = 1024 ** 3;

test('counts a table for each cluster that lies far from the others, and no more than the disk has', () => {
  expect(imageBytes(0, 1024 * GIB)).toBeLessThan(4 * 1024 * KIB);
  // A thousand clusters over a disk of 1 TiB: as many tables again.
  expect(imageBytes(1000 * 64 * KIB, 1024 * GIB)).toBeGreaterThan(2 * 1000 * 64 * KIB);
  // A whole disk of 1 TiB: 2048 tables.
  expect(imageBytes(1024 * GIB, 1024 * GIB) - 1024 * GIB).toBeGreaterThan(2048 * 64 * KIB);
  expect(imageBytes(1024 * GIB, 1024 * GIB) - 1024 * GIB).toBeLessThan(GIB / 4);
});
