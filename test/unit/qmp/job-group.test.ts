// Jobs that stand or fall together, of a scripted monitor.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { QmpClient } from '../../../src/qmp/client.js';
import { cancelGroup, finalizeGroup, waitForGroup, type GroupProgress } from '../../../src/qmp/job-group.js';
import { FakeMonitor, Refusal } from '../../support/fake-monitor.js';
import { scratch, type Scratch } from '../../support/scratch.js';

interface Job {
  readonly id: string;
  status: string;
  error?: string;
  'current-progress'?: number;
}
let folder: Scratch;
let fake: FakeMonitor;
let client: QmpClient;
let jobs: Job[];
const ids = ['a', 'b'];
const named = (id: unknown): Job | undefined => jobs.find((job) => job.id === id);
beforeEach(async () => {
  folder = scratch();
  jobs = ids.map((id) => ({ id, status: 'running' }));
  fake = await FakeMonitor.listen(folder.path('qmp.sock'), {
    handlers: {
      'query-jobs': () => jobs.map((job) => ({ type: 'backup', 'current-progress': 1, 'total-progress': 4, ...job })),
      'job-finalize': ({ arguments: args }) => {
        const job = named(args?.['id']);
        if (job !== undefined) job.status = 'concluded';
        return {};
      },
      'job-cancel': ({ arguments: args }) => {
        const job = named(args?.['id']);
        if (job?.status === 'aborting') throw new Refusal('Job is aborting');
        if (job !== undefined) Object.assign(job, { status: 'concluded', error: 'Operation canceled' });
        return {};
      },
      'job-dismiss': ({ arguments: args }) => {
        jobs = jobs.filter(({ id }) => id !== args?.['id']);
        return {};
      },
    },
  });
  client = await QmpClient.connect(fake.path);
});
afterEach(async () => {
  client.close();
  await fake[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});
const options = (onProgress: (progress: GroupProgress) => void = () => undefined) => ({
  signal: new AbortController().signal,
  stallMs: 60_000,
  onProgress,
});

describe('waitForGroup', () => {
  test('returns when all are pending, and adds up their progress', async () => {
    const seen: GroupProgress[] = [];
    const waiting = waitForGroup(
      client,
      ids,
      options((progress) => void seen.push(progress)),
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    jobs = ids.map((id) => ({ id, status: 'pending', 'current-progress': 4 }));
    fake.event('JOB_STATUS_CHANGE', { id: 'a', status: 'pending' });
    expect(await waiting).toHaveLength(2);
    expect(seen[0]).toEqual({ current: 2, total: 8 });
    expect(seen.at(-1)).toEqual({ current: 8, total: 8 });
  });

  test.each([
    [
      'failed',
      [
        { id: 'a', status: 'pending' },
        { id: 'b', status: 'concluded', error: 'No space left' },
      ],
      'job b failed: No space left',
    ],
    ['is gone', [{ id: 'a', status: 'pending' }], 'job b is gone'],
    [
      'ended before',
      [
        { id: 'a', status: 'running' },
        { id: 'b', status: 'concluded' },
      ],
      'job b ended before its group',
    ],
  ])('throws if one %s, whatever the others do', async (_what, now, message) => {
    jobs = now;
    await expect(waitForGroup(client, ids, options())).rejects.toThrow(message);
  });

  test('throws if one does not get on, though the others do', async () => {
    let copied = 0;
    jobs = [
      { id: 'a', status: 'running' },
      { id: 'b', status: 'running' },
    ];
    const goesOn = setInterval(() => Object.assign(named('b') ?? {}, { 'current-progress': copied++ }), 20);
    const waiting = waitForGroup(client, ids, { ...options(), stallMs: 700 });
    await expect(waiting)
      .rejects.toThrow('job a to get on')
      .finally(() => {
        clearInterval(goesOn);
      });
    // One that has all it wants waits for the others, as long as they take.
    jobs = [
      { id: 'a', status: 'pending' },
      { id: 'b', status: 'running' },
    ];
    const end = setTimeout(() => Object.assign(named('b') ?? {}, { status: 'pending' }), 1500);
    const busy = setInterval(() => Object.assign(named('b') ?? {}, { 'current-progress': copied++ }), 20);
    await waitForGroup(client, ids, { ...options(), stallMs: 1000 }).finally(() => {
      clearInterval(busy);
      clearTimeout(end);
    });
  });

  test('waits for nobody who is told: a stall and an interruption are seen all the same', async () => {
    const never = (): unknown => new Promise(() => undefined);
    const told = options(never);
    await expect(waitForGroup(client, ids, { ...told, stallMs: 1 })).rejects.toMatchObject({ code: 'E_DEADLINE' });
    const controller = new AbortController();
    setTimeout(() => {
      controller.abort(new Error('enough'));
    }, 50);
    await expect(waitForGroup(client, ids, { ...told, signal: controller.signal })).rejects.toThrow('enough');
  });

  test('throws if none gets on, and when it is interrupted', async () => {
    await expect(waitForGroup(client, ids, { ...options(), stallMs: 1 })).rejects.toMatchObject({ code: 'E_DEADLINE' });
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(waitForGroup(client, ids, { ...options(), signal })).rejects.toThrow('enough');
  });
});

test('finalizeGroup finalizes all before it waits for one, and forgets them', async () => {
  jobs = ids.map((id) => ({ id, status: 'pending' }));
  await finalizeGroup(client, ids, 1000);
  expect(jobs).toEqual([]);
  const acts = fake.commands.filter((name) => name !== 'query-jobs' && name !== 'qmp_capabilities');
  expect(acts).toEqual(['job-finalize', 'job-finalize', 'job-dismiss', 'job-dismiss']);
});

test('cancelGroup ends those that are there, however far they came, and leaves others alone', async () => {
  jobs = [
    { id: 'a', status: 'pending' },
    { id: 'b', status: 'aborting' },
    { id: 'theirs', status: 'running' },
  ];
  setTimeout(() => Object.assign(named('b') ?? {}, { status: 'concluded' }), 100);
  await cancelGroup(client, [...ids, 'never there']);
  expect(jobs).toEqual([{ id: 'theirs', status: 'running' }]);
  await cancelGroup(client, ids);
});
