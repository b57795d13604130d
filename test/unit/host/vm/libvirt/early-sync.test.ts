// Syncing what is copied while it is copied.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { EarlySync } from '../../../../../src/host/vm/libvirt/early-sync.js';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

test('is begun now and then, one at a time', async () => {
  const ends: (() => void)[] = [];
  const early = new EarlySync(() => new Promise((resolve) => ends.push(resolve)));
  early.tick();
  expect(ends).toHaveLength(0);
  vi.advanceTimersByTime(5000);
  early.tick();
  vi.advanceTimersByTime(5000);
  early.tick();
  expect(ends).toHaveLength(1);
  ends[0]?.();
  await early.end();
  early.tick();
  expect(ends).toHaveLength(1);
  vi.advanceTimersByTime(5000);
  early.tick();
  expect(ends).toHaveLength(2);
});

test('a write that was lost is told of, though the next sync knows nothing of it', async () => {
  const early = new EarlySync(() => Promise.reject(new Error('lost')));
  vi.advanceTimersByTime(5000);
  early.tick();
  await expect(early.end()).rejects.toThrow('lost');
  expect(() => {
    early.tick();
  }).toThrow('lost');
});
