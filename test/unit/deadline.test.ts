// Many may wait for one signal.
import { afterEach, expect, test, vi } from 'vitest';
import { AbortWait, onAbort } from '../../src/deadline.js';

afterEach(() => {
  vi.restoreAllMocks();
});

test('however many wait for a signal, it has one listener', async () => {
  const abort = new AbortController();
  const listen = vi.spyOn(abort.signal, 'addEventListener');
  const waits = Array.from({ length: 100 }, () => new AbortWait(abort.signal));
  expect(listen).toHaveBeenCalledTimes(1);
  abort.abort();
  expect(await Promise.all(waits.map(async ({ aborted }) => await aborted))).toEqual(waits.map(() => 'aborted'));
});

test('who has taken the wait back is not called, all others are, once', () => {
  const abort = new AbortController();
  const called: string[] = [];
  onAbort(abort.signal, () => called.push('a'));
  const forget = onAbort(abort.signal, () => called.push('b'));
  onAbort(abort.signal, () => {
    called.push('c');
  });
  forget();
  abort.abort();
  expect(called).toEqual(['a', 'c']);
});

test('one that is aborted already is waited for no more; without a signal nothing comes', async () => {
  await expect(new AbortWait(AbortSignal.abort()).aborted).resolves.toBe('aborted');
  const never = new AbortWait(undefined);
  expect(await Promise.race([never.aborted, Promise.resolve('nothing')])).toBe('nothing');
  never.clear();
});
