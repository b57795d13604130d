import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DeadlineError } from '../../../src/errors.js';
import { QmpClient } from '../../../src/qmp/client.js';
import { waitForJob, type JobProgress } from '../../../src/qmp/jobs.js';
import { FakeMonitor } from '../../support/fake-monitor.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let folder: Scratch;
let fake: FakeMonitor;
let client: QmpClient;
let jobs: object[];
const job = (status: string, over: object = {}): object => ({
  id: 'mine',
  type: 'commit',
  status,
  'current-progress': 1,
  'total-progress': 4,
  ...over,
});
beforeEach(async () => {
  folder = scratch();
  jobs = [job('running')];
  fake = await FakeMonitor.listen(folder.path('qmp.sock'), { handlers: { 'query-jobs': () => jobs } });
  client = await QmpClient.connect(fake.path);
});
afterEach(async () => {
  client.close();
  await fake[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

describe('waitForJob', () => {
  test('wakes at the event, and takes the status from query-jobs', async () => {
    const progress: JobProgress[] = [];
    const started = performance.now();
    const waiting = waitForJob(client, 'mine', ['ready'], { limitMs: 5000, onProgress: (each) => progress.push(each) });
    await new Promise((resolve) => setTimeout(resolve, 50));
    jobs = [job('ready', { 'current-progress': 4 })];
    fake.event('JOB_STATUS_CHANGE', { id: 'other', status: 'ready' });
    fake.event('JOB_STATUS_CHANGE', { id: 'mine', status: 'ready' });
    expect((await waiting).status).toBe('ready');
    // Before the poll would have found it.
    expect(performance.now() - started).toBeLessThan(400);
    expect(progress.at(-1)).toEqual({ id: 'mine', status: 'ready', current: 4, total: 4 });
  });

  test('finds a status whose event was lost', async () => {
    const waiting = waitForJob(client, 'mine', ['concluded'], { limitMs: 5000 });
    await new Promise((resolve) => setTimeout(resolve, 50));
    jobs = [job('concluded')];
    expect((await waiting).status).toBe('concluded');
  });

  test("fails with the job's own error, although it is concluded as asked", async () => {
    jobs = [job('concluded', { error: 'No space left on device' })];
    const waiting = waitForJob(client, 'mine', ['concluded'], { limitMs: 500 });
    await expect(waiting).rejects.toThrow('job mine failed: No space left on device');
  });

  test('fails once the job has ended, though its error was told before: until then nobody can dismiss it', async () => {
    const error = 'Unable to get accurate CPU usage';
    jobs = [job('running', { error })];
    let isOver = false;
    const waiting = waitForJob(client, 'mine', ['running', 'concluded'], { limitMs: 5000 }).finally(() => {
      isOver = true;
    });
    const failed = expect(waiting).rejects.toThrow(`job mine failed: ${error}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(isOver).toBe(false);
    jobs = [job('concluded', { error })];
    await failed;
  });

  test('fails if the job is gone, or ended before it was ready', async () => {
    await expect(waitForJob(client, 'theirs', ['ready'], { limitMs: 500 })).rejects.toThrow('job theirs is gone');
    jobs = [job('concluded')];
    await expect(waitForJob(client, 'mine', ['ready'], { limitMs: 500 })).rejects.toThrow('ended before it was ready');
  });

  test('has a limit, and can be given up', async () => {
    await expect(waitForJob(client, 'mine', ['ready'], { limitMs: 60 })).rejects.toBeInstanceOf(DeadlineError);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(waitForJob(client, 'mine', ['ready'], { limitMs: 5000, signal })).rejects.toThrow('enough');
  });
});
