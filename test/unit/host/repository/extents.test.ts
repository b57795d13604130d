// Sums of a file: damage is found where it is, and what b2sum gives is what is recorded.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { sumFile, whyDamaged } from '../../../../src/host/repository/extents.js';
import { scratch } from '../../../support/scratch.js';

const signal = new AbortController().signal;
const extentBytes = 1000;
const content = (bytes: number): Buffer => Buffer.from(Array.from({ length: bytes }, (_, index) => index % 251));

test.each([
  [0, 0],
  [1, 1],
  [999, 1],
  [1000, 1],
  [1001, 2],
  [3000, 3],
])('a file of %i bytes has %i extents', async (bytes, count) => {
  using folder = scratch();
  const file = folder.path('a');
  writeFileSync(file, content(bytes));
  let read = 0;
  const sum = await sumFile(file, { extentBytes, signal, onRead: (more) => void (read += more) });
  expect(sum.size).toBe(bytes);
  expect(read).toBe(bytes);
  expect(sum.extents).toHaveLength(count);
  expect(await whyDamaged(file, { name: 'a', ...sum }, { signal })).toBeUndefined();
});

// The second is read in several pieces, the last of them a short one.
test.each([500, 3_500_001])('an extent of %i bytes has the sum that b2sum gives', async (bytes) => {
  using folder = scratch();
  const file = folder.path('a');
  writeFileSync(file, content(bytes));
  const { extents } = await sumFile(file, { signal });
  expect(extents).toHaveLength(1);
  expect(execFileSync('b2sum', [file], { encoding: 'utf8' })).toContain(extents[0]);
});

test('tells which extents are damaged, a changed size and a record that is not whole', async () => {
  using folder = scratch();
  const file = folder.path('a');
  const bytes = content(3500);
  writeFileSync(file, bytes);
  const recorded = { name: 'a', ...(await sumFile(file, { extentBytes, signal })) };
  for (const at of [1999, 3000]) bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(file, bytes);
  expect(await whyDamaged(file, recorded, { signal })).toBe('2 extents of 1000 bytes are damaged (at byte 1000, 3000)');
  truncateSync(file, 3499);
  expect(await whyDamaged(file, recorded, { signal })).toBe('it has 3499 bytes, expected 3500');
  const other = { ...recorded, extents: recorded.extents.toReversed() };
  expect(await whyDamaged(file, other, { signal })).toContain('the sums in it do not agree');
});

test('ends when it is interrupted', async () => {
  using folder = scratch();
  const file = folder.path('a');
  writeFileSync(file, content(10));
  await expect(sumFile(file, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough');
});

test('is interrupted at once where a file hangs', async () => {
  using folder = scratch();
  const file = folder.path('pipe');
  // open(2) waits for somebody who writes.
  execFileSync('mkfifo', [file]);
  const controller = new AbortController();
  setTimeout(() => {
    controller.abort(new Error('enough'));
  }, 50);
  try {
    await expect(sumFile(file, { signal: controller.signal })).rejects.toThrow('enough');
  } finally {
    closeSync(openSync(file, constants.O_RDWR | constants.O_NONBLOCK));
  }
});
