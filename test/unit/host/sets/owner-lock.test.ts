import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { takeLock, waitUntilFree } from '../../../../src/host/sets/owner-lock.js';
import { thisProcess, type Owner } from '../../../../src/host/sets/owner.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
let file: string;
beforeEach(() => {
  folder = scratch();
  file = folder.path('lock.json');
});
afterEach(() => {
  folder[Symbol.dispose]();
});

const now = { what: 'VM db1', waitMs: 0 };
const take = (waitMs = 0, set = 's1') => takeLock(file, { operation: 'create', set }, { ...now, waitMs });
const left = async (owner: Partial<Owner>): Promise<void> => {
  const entry = { format: 1, operation: 'commit', set: 's9', since: 'then', token: 'x' };
  writeFileSync(file, JSON.stringify({ ...entry, owner: { ...(await thisProcess()), ...owner } }));
};

describe('a lock', () => {
  test('is had by one of several that ask at once; the others are told who has it, and for what', async () => {
    const asked = await Promise.allSettled([take(), take(), take(), take()]);
    expect(asked.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    const refused = asked.find(({ status }) => status === 'rejected');
    const message = `VM db1 is being worked on by process ${process.pid} (create s1, since 20`;
    expect(refused).toMatchObject({ reason: { code: 'E_VM_BUSY' } });
    expect(String((refused as PromiseRejectedResult).reason)).toContain(message);
  });

  test('is had again when it is let go, and nothing is left', async () => {
    const lock = await take();
    await expect(take()).rejects.toMatchObject({ code: 'E_VM_BUSY' });
    await lock[Symbol.asyncDispose]();
    await (await take())[Symbol.asyncDispose]();
    expect(readdirSync(folder.dir)).toEqual([]);
  });

  test('is waited for as long as was asked, and no longer', async () => {
    const lock = await take();
    const started = performance.now();
    await expect(take(200)).rejects.toMatchObject({ code: 'E_VM_BUSY' });
    expect(performance.now() - started).toBeGreaterThan(190);
    const waiting = take(10_000);
    const free = waitUntilFree(file, { ...now, waitMs: 10_000 });
    await sleep(100);
    await lock[Symbol.asyncDispose]();
    // Whichever sees first that it is free: the other waits for that one, too.
    await Promise.all([
      free,
      waiting.then(async (taken) => {
        await taken[Symbol.asyncDispose]();
      }),
    ]);
  });

  test('is not waited for after an interruption', async () => {
    await using lock = await take();
    const signal = AbortSignal.abort('SIGTERM');
    const work = takeLock(lock.file, { operation: 'create' }, { ...now, waitMs: 60_000, signal });
    await expect(work).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
  });

  test.each([
    ['was killed', { startTicks: '1' }],
    ['ended before the machine was booted', { bootId: 'before' }],
  ])('of a process that %s is taken over, by one of many', { repeats: 10 }, async (_what, owner) => {
    await left(owner);
    let inside = 0;
    const met: number[] = [];
    const work = async (): Promise<void> => {
      const lock = await take(10_000);
      met.push(++inside);
      await sleep(Math.random() * 5);
      inside--;
      await lock[Symbol.asyncDispose]();
    };
    await Promise.all(Array.from({ length: 6 }, work));
    expect(met).toEqual([1, 1, 1, 1, 1, 1]);
    expect(readdirSync(folder.dir)).toEqual([]);
  });

  test('that is none of ours is taken over', async () => {
    writeFileSync(file, '{');
    await (await take())[Symbol.asyncDispose]();
    expect(existsSync(file)).toBe(false);
  });

  test('of another container is left alone, and the file to remove is named', async () => {
    await left({ pidNamespace: 'pid:[1]' });
    await expect(take()).rejects.toThrow(
      `(commit s9, since then), of another container; if it has ended, remove ${file}`,
    );
  });

  test('that somebody else has by now is not let go', async () => {
    const lock = await take();
    await left({});
    await lock[Symbol.asyncDispose]();
    expect(existsSync(file)).toBe(true);
  });
});
