// Whose a session is inside the guest, and what becomes of it when its requester goes: the keeper over the real
// coordinator and a fake freezer.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { setTimeout as sleep } from 'node:timers/promises';
import { lateThawNote } from '../../../src/agent/late-thaw-note.js';
import type { ChannelContext } from '../../../src/agent/origin.js';
import { SessionKeeper } from '../../../src/agent/session-keeper.js';
import type { FreezeRequest } from '../../../src/consistency.js';
import { createCoordinator } from '../../../src/freeze/coordinator.js';
import type { LocalSession } from '../../../src/freeze/options.js';
import type { FakeFreezerOptions } from '../../support/fake-freezer.js';
import { FreezeHarness } from '../../support/freeze-harness.js';

let harness: FreezeHarness;
let keeper: SessionKeeper;
let clients = 0;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const host: ChannelContext = { origin: 'host', name: 'port' };

/** A connection inside the guest, and its end. */
function connection(isRoot = false) {
  const end = new AbortController();
  const context = { origin: 'guest', name: 'local', client: { id: ++clients, isRoot, gone: end.signal } } as const;
  return {
    context,
    dies: () => {
      end.abort(new Error('the connection was ended'));
    },
  };
}

async function start(options: FakeFreezerOptions = {}): Promise<void> {
  keeper = new SessionKeeper(await harness.start(options), lateThawNote(harness.dir));
}
const request = (session: string, more: Partial<FreezeRequest> = {}): FreezeRequest => ({
  requester: 'restic',
  session,
  leaseMs: 5_000,
  require: 'filesystem',
  ...more,
});
async function hold(holder: ChannelContext, session = 's1', endsWithChannel = false): Promise<LocalSession> {
  return await keeper.freeze(request(session), holder, { endsWithChannel });
}
const heldText = 'the guest is held by restic (inside the guest, session s1): it alone can end that';

describe('a session that a connection inside the guest began', () => {
  test('is ended by no other one there, plain or by name, nor renewed, nor told critical', async () => {
    await start();
    const [holder, other] = [connection(true), connection()];
    await hold(holder.context);
    await expect(keeper.thawPlain(other.context)).rejects.toThrow(heldText);
    await expect(keeper.thaw('s1', other.context)).rejects.toThrow(heldText);
    await expect(keeper.renew('s1', 5_000, other.context)).rejects.toThrow(heldText);
    await expect(keeper.critical('s1', true, { boundMs: 1_000 }, connection(true).context)).rejects.toThrow(heldText);
    expect(harness.freezer.frozen).toHaveLength(2);
    expect((await keeper.thaw('s1', holder.context)).outcome).toBe('ok');
    await expect(keeper.thaw('s1', other.context)).rejects.toThrow(heldOrNobody);
  });

  test('is ended by root with its name, as broken, and its requester is told so', async () => {
    await start();
    const [holder, root] = [connection(), connection(true)];
    await hold(holder.context);
    await expect(keeper.thawPlain(root.context)).rejects.toThrow('and root by bridge-thaw with the session');
    expect(await keeper.thaw('s1', root.context)).toMatchObject({ outcome: 'broken', state: 'thawed' });
    expect(harness.freezer.frozen).toEqual([]);
    // Root asks again, and that tells its requester nothing.
    await keeper.thaw('s1', root.context);
    expect(keeper.untold).toMatchObject([{ session: 's1' }]);
    expect(await keeper.thaw('s1', holder.context)).toMatchObject({
      outcome: 'broken',
      error: 'ended by root, by bridge-thaw on local',
    });
    expect(keeper.untold).toEqual([]);
  });

  test('is refused to the host by the name of its holder, as its freeze is, and both work afterwards', async () => {
    await start();
    const holder = connection();
    await hold(holder.context);
    await expect(keeper.thawPlain(host)).rejects.toThrow(heldText);
    await expect(keeper.thaw('s1', host)).rejects.toThrow(heldText);
    await expect(keeper.freeze(request('h1', { require: 'plain' }), host)).rejects.toThrow('frozen for restic');
    await keeper.thaw('s1', holder.context);
    await keeper.freeze(request('h2', { require: 'plain' }), host);
    expect(await keeper.thawPlain(host)).toBe(2);
  });

  test('outlives that connection by its lease, and is then of whoever of its side knows its name', async () => {
    await start();
    const [holder, other] = [connection(), connection()];
    await hold(holder.context);
    holder.dies();
    await sleep(50);
    expect(harness.freezer.frozen).toHaveLength(2);
    expect(await keeper.renew('s1', 5_000, other.context)).toBeGreaterThan(4_000);
    await expect(keeper.thaw('s1', host)).rejects.toThrow(heldText);
    expect((await keeper.thaw('s1', other.context)).outcome).toBe('ok');
  });

  test('ended by itself is told to its requester, and to no other program', async () => {
    await start();
    const [holder, other] = [connection(), connection()];
    const session = await keeper.freeze(request('s1', { leaseMs: 100 }), holder.context);
    await session.ended;
    expect(await keeper.thawPlain(other.context)).toBe(0);
    await hold(other.context, 's2');
    await keeper.thaw('s2', other.context);
    await expect(keeper.thawPlain(holder.context)).rejects.toThrow('before the requester asked');
    expect(await keeper.thawPlain(holder.context)).toBe(0);
  });

  test('is completed by no other one', async () => {
    await start();
    const [holder, other] = [connection(), connection()];
    await hold(holder.context);
    await keeper.thaw('s1', holder.context);
    await expect(keeper.complete('s1', 'ok', other.context)).rejects.toThrow('session s1 was held by restic');
    expect(await keeper.complete('s1', 'ok', holder.context)).toMatchObject({ session: 's1' });
  });
});
const heldOrNobody = 'the guest is held by a requester inside the guest';

describe('a session that ends with its connection', () => {
  test('is thawed at once when that ends; nobody is owed anything, and the next one may come', async () => {
    await start();
    const [holder, other] = [connection(), connection()];
    const session = await hold(holder.context, 's1', true);
    const started = performance.now();
    holder.dies();
    expect(await session.ended).toMatchObject({ outcome: 'broken', error: 'its requester ended the connection' });
    expect(performance.now() - started).toBeLessThan(500);
    expect(harness.freezer.frozen).toEqual([]);
    expect(await keeper.thawPlain(other.context)).toBe(0);
    expect(keeper.untold).toEqual([]);
    await hold(other.context, 's2');
    await keeper.thaw('s2', other.context);
  });

  test.each(['sync', 'freeze'] as const)('is given up in %s, before its requester has had the reply', async (step) => {
    await start(step === 'sync' ? { syncMs: 2_000 } : { freezeMs: 2_000 });
    const holder = connection();
    const attempt = hold(holder.context, 's1', true);
    attempt.catch(() => undefined);
    await sleep(200);
    const started = performance.now();
    holder.dies();
    await expect(attempt).rejects.toThrow('aborted');
    expect(performance.now() - started).toBeLessThan(1_500);
    expect(harness.freezer.frozen).toEqual([]);
    expect(keeper.holder).toBeUndefined();
  });

  test('does not begin if the connection is gone already', async () => {
    await start();
    const holder = connection();
    holder.dies();
    await expect(hold(holder.context, 's1', true)).rejects.toThrow('aborted');
    expect(harness.journal).toEqual([]);
  });

  test('waits for the end of a critical section, within its bound, and lets no new one begin', async () => {
    await start();
    const holder = connection(true);
    const session = await hold(holder.context, 's1', true);
    await keeper.critical('s1', true, { boundMs: 400 }, holder.context);
    const started = performance.now();
    holder.dies();
    await sleep(200);
    expect(harness.freezer.frozen).toHaveLength(2);
    expect((await session.ended).outcome).toBe('broken');
    expect(performance.now() - started).toBeGreaterThan(380);
    expect(performance.now() - started).toBeLessThan(1_000);
  });

  test('is not for the host, whose channel does not tell', async () => {
    await start();
    await expect(hold(host, 's1', true)).rejects.toThrow(
      "ends-with-channel: expected a connection to a socket of this agent's inside the guest, found port",
    );
    expect(harness.journal).toEqual([]);
  });

  test('ends as ever by its own thaw, after which its end changes nothing', async () => {
    await start();
    const holder = connection();
    await hold(holder.context, 's1', true);
    expect((await keeper.thaw('s1', holder.context)).outcome).toBe('ok');
    holder.dies();
    await sleep(20);
    const other = connection();
    expect(await keeper.thaw('s1', other.context)).toMatchObject({ outcome: 'ok' });
  });
});

describe('a critical section', () => {
  test("is told by root's connections alone, of their own session", async () => {
    await start();
    const holder = connection();
    await hold(holder.context);
    await expect(keeper.critical('s1', true, { boundMs: 1_000 }, holder.context)).rejects.toThrow(
      "bridge-critical: expected a requester on the socket that is root's alone, found local",
    );
    await expect(keeper.critical('s1', true, { boundMs: 1_000 }, host)).rejects.toThrow('found port');
    await expect(keeper.critical('s2', true, { boundMs: 1_000 }, connection(true).context)).rejects.toThrow(
      "no session 's2' here",
    );
    await keeper.thaw('s1', holder.context);
    await expect(keeper.critical('s1', true, { boundMs: 1_000 }, connection(true).context)).rejects.toThrow(
      'session s1 has ended',
    );
  });

  test('is waited for when root, or a successor, ends the session', async () => {
    for (const by of ['root', 'successor'] as const) {
      await start();
      const [holder, other] = [connection(true), connection(by === 'root')];
      await hold(holder.context, by);
      await keeper.critical(by, true, { boundMs: 300 }, holder.context);
      if (by === 'successor') holder.dies();
      const started = performance.now();
      await keeper.thaw(by, other.context);
      expect(performance.now() - started, by).toBeGreaterThan(280);
      expect(harness.freezer.frozen).toEqual([]);
    }
  });
});

test("the freezer held by a session that is not this agent's: a thaw names its holder, as a freeze does", async () => {
  await start();
  const other = createCoordinator(harness.options);
  const session = await other.freeze(request('theirs', { requester: 'a second agent' }));
  const words = "the guest is held by a second agent (session theirs, none of this agent's)";
  for (const asker of [host, connection(true).context]) {
    await expect(keeper.thawPlain(asker)).rejects.toThrow(words);
    await expect(keeper.freeze(request(`mine-${asker.origin}`), asker)).rejects.toThrow('held by a second agent');
  }
  await expect(keeper.thaw('theirs', host)).rejects.toThrow("no session 'theirs' here; held by a second agent");
  await session.thaw();
  expect(await keeper.thawPlain(host)).toBe(0);
  await other.close();
});
