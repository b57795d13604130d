import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { overlaySizes } from '../../../../src/host/sets/overlay-sizes.js';
import { manifest } from '../../../support/manifests.js';
import { scratch } from '../../../support/scratch.js';

const HOUR_MS = 3_600_000;
const createdAt = '2026-01-01T00:00:00Z';

test('counts what an overlay has allocated, not its holes, and how fast it grew since the cut', async () => {
  using folder = scratch();
  const file = folder.path('overlay');
  const fd = openSync(file, 'w');
  writeSync(fd, Buffer.alloc(1024 * 1024, 1));
  ftruncateSync(fd, 1024 ** 3);
  closeSync(fd);
  const set = manifest('s1', createdAt, '/img/a', file);
  const [size] = await overlaySizes(set, Date.parse(createdAt) + 4 * HOUR_MS);
  expect(size).toMatchObject({ set: 's1', disk: 'vd0', file, fileBytes: 1024 ** 3, ageMs: 4 * HOUR_MS });
  expect(size?.allocatedBytes).toBeGreaterThanOrEqual(1024 * 1024);
  expect(size?.allocatedBytes).toBeLessThan(2 * 1024 * 1024);
  expect(size?.bytesPerHour).toBe(Math.round((size?.allocatedBytes ?? 0) / 4));
  // A revert emptied it: what it holds came after.
  const reverted = { ...set, revertedAt: '2026-01-01T03:00:00Z' };
  const [since] = await overlaySizes(reverted, Date.parse(createdAt) + 4 * HOUR_MS);
  expect(since?.bytesPerHour).toBe(size?.allocatedBytes);
});

test('says of an overlay that is not there that it is not, and nothing of sets without one', async () => {
  expect(await overlaySizes(manifest('s1', createdAt, '/img/a', '/nonexistent'))).toMatchObject([
    { allocatedBytes: undefined, fileBytes: undefined, bytesPerHour: undefined },
  ]);
  for (const state of ['committed', 'failed', 'creating'] as const) {
    expect(await overlaySizes({ ...manifest('s1'), state })).toEqual([]);
  }
});
