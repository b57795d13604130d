import { expect, test } from 'vitest';
import { classicStatus, poolStatus } from '../../../../src/snapshot/lvm/device-status.js';

test('a classic snapshot tells its room in sectors', () => {
  expect(classicStatus('0 204800 snapshot 16/40960 16')).toEqual({
    state: 'whole',
    usedBytes: 16 * 512,
    totalBytes: 40960 * 512,
  });
});

test.each(['Invalid', 'Overflow', 'Merge failed', 'Unknown'])('a classic snapshot that says %s is lost', (word) => {
  expect(classicStatus(`0 204800 snapshot ${word}`)).toEqual({ state: 'lost' });
});

test('a thin pool tells how full it is, and is lost only if it failed', () => {
  const line = (mode: string) =>
    `0 409600 thin-pool 1 11/1024 55/3200 - ${mode} discard_passdown queue_if_no_space - 1024`;
  const totalBytes = 409600 * 512;
  expect(poolStatus(line('rw'))).toEqual({ state: 'whole', usedBytes: (totalBytes * 55) / 3200, totalBytes });
  const full = '0 409600 thin-pool 1 512/1024 55/3200 - rw discard_passdown queue_if_no_space - 1024';
  expect(poolStatus(full)).toMatchObject({ usedBytes: totalBytes / 2 });
  expect(poolStatus(line('out_of_data_space'))).toMatchObject({ state: 'whole' });
  expect(poolStatus('0 409600 thin-pool Fail')).toEqual({ state: 'lost' });
});
