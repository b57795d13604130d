// What hangs, over a fake freezer: a sync, and a freeze or a thaw that the freezer gave up; and how many ask it at a time. The same
// against kernels: test/vm/hung-disk.test.ts.
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SessionKeeper } from '../../../../src/agent/session-keeper.js';
import type { FreezeReport, FreezeRequest } from '../../../../src/consistency.js';
import { QuiesceError, ThawUnconfirmedError } from '../../../../src/errors.js';
import { FreezerInquiry } from '../../../../src/freeze/freezer/inquiry.js';
import { untilThawed } from '../../../../src/freeze/freezer/until-thawed.js';
import { FreezeHarness } from '../../../support/freeze-harness.js';

let harness: FreezeHarness;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});
const request = (more: Partial<FreezeRequest> = {}): FreezeRequest => ({
  requester: 'test',
  leaseMs: 5_000,
  require: 'plain',
  ...more,
});
const failed = async (attempt: Promise<unknown>): Promise<{ error: Error; report: FreezeReport }> => {
  const error = await attempt.catch((reason: unknown) => reason);
  if (!(error instanceof QuiesceError || error instanceof ThawUnconfirmedError)) throw error;
  return { error, report: error.facts['report'] as FreezeReport };
};

test.each(['plain', 'crash', 'application'] as const)(
  'a sync that does not come back refuses a freeze (%s) before anything is held',
  async (require) => {
    harness.hook('w', 'log');
    const coordinator = await harness.start({ syncHangs: ['/data'] });
    const { error, report } = await failed(coordinator.freeze(request({ require })));
    expect(error.message).toMatch(/^not synced within \d+ ms, and nothing was held for it: \/data\. /);
    expect(report).toMatchObject({ outcome: 'failed', state: 'thawed' });
    expect(harness.journal).toEqual([]);
    expect(await coordinator.status()).toEqual({ state: 'idle' });
    expect(await coordinator.hungFilesystems()).toMatchObject([{ mountpoint: '/data', call: 'sync' }]);
  },
);

test('the next session works without it, says so, and is worth no more', async () => {
  const coordinator = await harness.start({ syncHangs: ['/data'] });
  await failed(coordinator.freeze(request()));
  const session = await coordinator.freeze(request());
  expect(session.frozenCount).toBe(1);
  const report = await session.thaw();
  expect(report).toMatchObject({ outcome: 'ok', level: 'crash' });
  expect(report.evidence).toContain('/data (xfs) was not held: given up');
  await expect(coordinator.freeze(request({ require: 'filesystem' }))).rejects.toThrow('/data (xfs) was not held');
});

test('a sync is waited for at least 2 s, however long the writers took', async () => {
  harness.hook('w', '# fsfreeze-bridge: phases=prepare,freeze,thaw\nsleep 0.3');
  const coordinator = await harness.start({}, { prepareBudgetMs: 100 });
  const asked: string[] = [];
  await harness.restartFreezer({
    log: (line) => {
      asked.push(line);
    },
  });
  await (await coordinator.freeze(request({ require: 'crash' }))).thaw().catch(() => undefined);
  const [budget = 0] = asked.flatMap((line) => (line.startsWith('sync ') ? [Number(line.slice(5))] : []));
  expect(budget).toBeGreaterThan(1_900);
  expect(budget).toBeLessThanOrEqual(2_000);
});

test('a thaw that hangs and is given up: an error of that thaw, and of nothing after it', async () => {
  const released: string[] = [];
  const coordinator = await harness.start(
    { givesUpThaw: ['/data'] },
    {
      onReleased: ({ state }) => {
        released.push(state);
      },
    },
  );
  const session = await coordinator.freeze(request());
  const { error, report } = await failed(session.thaw());
  expect(error).toBeInstanceOf(ThawUnconfirmedError);
  expect(error.message).toContain('nobody confirmed the thaw of /data');
  expect(report.state).toBe('frozen');
  expect(await coordinator.status()).toEqual({ state: 'idle' });
  expect(released).toEqual(['frozen']);
  // Its marker is gone: there is none in this test.
  expect((await session.thawed).state).toBe('thawed');
  expect(released).toEqual(['frozen']);
});

test.each([
  ['FITHAW', { givesUpThaw: ['/data'] }],
  ['FIFREEZE', { late: ['/data'], hangs: ['/data'] }],
] as const)('a %s that hangs: commands go on, and nothing is written until it has returned', async (_call, hangs) => {
  const told: string[] = [];
  const coordinator = await harness.start(hangs, {
    freezeLimitMs: 100,
    onReleased: () => {
      told.push('released');
    },
    onWritable: (session) => {
      told.push(`writable ${session}`);
    },
  });
  // The freezer's, as long as the kernel has not returned.
  const marker = `${harness.dir}/run/frozen.left-999999999-1-1`;
  writeFileSync(marker, 'fsfreeze-bridge 1 999999999 1 s1 -\nintended 1 0:0 /data\n');
  await failed(coordinator.freeze(request({ session: 's1' })).then(async (session) => await session.thaw()));
  expect(told).toEqual(['released']);
  expect(await coordinator.status()).toEqual({ state: 'idle' });
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  expect(told).toEqual(['released']);
  rmSync(marker);
  await expect.poll(() => told).toEqual(['released', 'writable s1']);
});

test('a session of which nothing hangs may be written after at once', async () => {
  const told: string[] = [];
  const coordinator = await harness.start({}, { onWritable: (session) => void told.push(session) });
  await (await coordinator.freeze(request({ session: 's1' }))).thaw();
  expect(told).toEqual(['s1']);
});

test('an attempt that failed with a thaw that hangs is owed an error until it is known to be thawed', async () => {
  const coordinator = await harness.start({ freezeErrno: { '/': 5 }, givesUpThaw: ['/data'] });
  const keeper = new SessionKeeper(coordinator, { read: () => undefined, write() {}, remove() {} });
  const host = { origin: 'host', name: 'port' } as const;
  const marker = `${harness.dir}/run/frozen.left-999999999-1-1`;
  writeFileSync(marker, 'fsfreeze-bridge 1 999999999 1 s1 -\nfrozen 1 0:0 /data\n');
  await expect(keeper.freeze(request({ session: 's1' }), host)).rejects.toThrow(ThawUnconfirmedError);
  for (let times = 0; times < 2; times++)
    await expect(keeper.thawPlain(host)).rejects.toThrow('nobody confirmed the thaw of /data');
  rmSync(marker);
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(await keeper.thawPlain(host)).toBe(0);
  expect(await keeper.thaw('s1', host)).toMatchObject({ outcome: 'failed', state: 'thawed' });
});

test("closing does not fail for what hangs and is the freezer's", async () => {
  const coordinator = await harness.start({ givesUpThaw: ['/data'] });
  writeFileSync(
    `${harness.dir}/run/frozen.left-999999999-1-1`,
    'fsfreeze-bridge 1 999999999 1 s1 -\nfrozen 1 0:0 /data\n',
  );
  const session = await coordinator.freeze(request({ session: 's1' }));
  await expect(session.thaw()).rejects.toThrow(ThawUnconfirmedError);
  await coordinator.close();
});

test.each([
  ['is left to a freezer that answers', 'answers', false, false],
  ['is not thawed by force while a later session holds a freezer that is stopped', 'silent', true, false],
  ['is thawed by force while the freezer is stopped and holds nothing else', 'silent', false, true],
  ['is thawed by force where the freezer has died, whoever else it held', 'dead', true, true],
])('what hangs %s', async (_what, freezer, later, isForced) => {
  await harness.start();
  if (freezer === 'dead') await harness.freezer.close();
  else harness.freezer.silent = freezer === 'silent';
  const [left, marker, freezerPath] = ['frozen.left-999999999-1-1', 'frozen', 'thaw-marked'].map((name) =>
    join(harness.dir, 'run', name),
  ) as [string, string, string];
  writeFileSync(left, 'fsfreeze-bridge 1 999999999 1 s1 -\nfrozen 1 0:0 /data\n');
  if (later) writeFileSync(marker, 'fsfreeze-bridge 1 999999999 1 s2 -\nfrozen 2 0:0 /\n');
  writeFileSync(freezerPath, `#!/bin/sh\necho started >>'${harness.journalPath}'\n`, { mode: 0o755 });
  const places = { socketPath: join(harness.dir, 'run/freezer.sock'), markerPath: marker, freezerPath };
  let isThawed = false;
  const waiting = untilThawed(places, 's1', 10).then(() => {
    isThawed = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  expect(harness.journal.includes('started')).toBe(isForced);
  expect(isThawed).toBe(false);
  rmSync(left);
  await waiting;
});

test('however many ask for the status at a time, one connection serves them', async () => {
  const coordinator = await harness.start();
  const states = await Promise.all(Array.from({ length: 32 }, async () => await coordinator.status()));
  expect(states).toEqual(Array.from({ length: 32 }, () => ({ state: 'idle' })));
  expect(harness.freezer.mostConnections).toBe(1);
  await Promise.all(Array.from({ length: 32 }, async () => await coordinator.hungFilesystems()));
  // The one before may not be seen closed yet.
  expect(harness.freezer.mostConnections).toBeLessThanOrEqual(2);
});

test('a silent freezer keeps nobody waiting, and one that has come back is asked again', async () => {
  const coordinator = await harness.start();
  harness.freezer.silent = true;
  const begun = performance.now();
  await Promise.all(Array.from({ length: 32 }, async () => await coordinator.status()));
  expect(performance.now() - begun).toBeLessThan(1_000);
  harness.freezer.silent = false;
  const inquiry = new FreezerInquiry(`${harness.dir}/run/freezer.sock`);
  expect((await inquiry.ask(async (freezer) => await freezer.status())).state).toBe('idle');
  expect(await coordinator.hungFilesystems()).toEqual([]);
  await harness.freezer.close();
  expect(await coordinator.status()).toEqual({ state: 'idle' });
  expect(await coordinator.hungFilesystems()).toEqual([]);
});
