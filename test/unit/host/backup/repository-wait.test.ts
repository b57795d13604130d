// Waiting for a repository that is slow, and for one that is gone.
import { expect, test } from 'vitest';
import { RepositoryWait } from '../../../../src/host/backup/repository-wait.js';

const STALL_MS = 60;
const never = <T>(): Promise<T> => new Promise<T>(() => undefined);
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

class Repository {
  readonly controller = new AbortController();
  asked = 0;
  hangs = false;
  readonly wait = new RepositoryWait('/backup', { signal: this.controller.signal, stallMs: STALL_MS }, async () => {
    this.asked++;
    await (this.hangs ? never() : Promise.resolve());
    throw new Error('ESTALE');
  });
}

test('lasts as long as the repository answers, whatever it says', async () => {
  const { wait, ...repository } = new Repository();
  expect(await wait.for('syncing', () => sleep(5 * STALL_MS).then(() => 'synced'))).toBe('synced');
  expect(repository.asked).toBe(0);
  wait.check();
});

test('ends when the repository is silent, names it, and sends nothing after', async () => {
  const repository = new Repository();
  const { wait } = repository;
  repository.hangs = true;
  await expect(wait.for('syncing what was copied', never)).rejects.toMatchObject({
    code: 'E_DEADLINE',
    message: `the repository /backup (syncing what was copied): no answer within ${STALL_MS} ms`,
  });
  expect(wait.isGivenUp).toBe(true);
  // Each that hangs takes one of the few threads.
  expect(repository.asked).toBe(1);
  let isSent = false;
  const later = wait.for('closing files', () => {
    isSent = true;
    return Promise.resolve();
  });
  await expect(later).rejects.toThrow('syncing what was copied');
  expect(isSent).toBe(false);
  expect(() => {
    wait.check();
  }).toThrow('no answer');
});

test('ends when work that tells of its progress makes none, and not while it is slow', async () => {
  const { wait } = new Repository();
  let read = 0;
  const slow = async (): Promise<void> => {
    for (; read < 20; read++) await sleep(STALL_MS / 4);
  };
  await wait.for('reading', slow, { progress: () => read });
  await expect(wait.for('reading', never, { progress: () => read })).rejects.toMatchObject({ code: 'E_DEADLINE' });
});

test('is interrupted at once, and what is under way is known', async () => {
  const { wait, controller } = new Repository();
  let end: () => void = () => undefined;
  const work = (): Promise<void> => new Promise((resolve) => (end = resolve));
  const waiting = wait.for('syncing', work);
  controller.abort('SIGINT');
  await expect(waiting).rejects.toMatchObject({
    code: 'E_INTERRUPTED',
    message: 'interrupted by SIGINT: nothing was backed up',
  });
  let isIdle = false;
  const idle = wait.idle().then(() => (isIdle = true));
  await sleep(10);
  expect(isIdle).toBe(false);
  end();
  await idle;
});

test('leaves alone what must come to its end, and passes on how it fails', async () => {
  const { wait, controller } = new Repository();
  controller.abort('SIGINT');
  await expect(wait.for('reading', () => Promise.resolve())).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
  const options = { isInterruptible: false };
  expect(await wait.for('publishing', () => sleep(10).then(() => 'published'), options)).toBe('published');
  await expect(wait.for('publishing', () => Promise.reject(new Error('EIO')), options)).rejects.toThrow('EIO');
  wait.check();
});
