// bridge-status on earlier sessions, with a coordinator that is played by the test.
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { bridgeHandlers } from '../../../../src/agent/handlers/bridge.js';
import type { FreezeEnvironment } from '../../../../src/agent/handlers/types.js';
import { SessionKeeper } from '../../../../src/agent/session-keeper.js';
import type { ChannelContext } from '../../../../src/agent/origin.js';
import type { CompleteOutcome } from '../../../../src/consistency.js';
import type { LocalSession } from '../../../../src/freeze/options.js';
import { monotonicMs } from '../../../../src/linux/clock.js';
import { freezeReport } from '../../../support/freeze-reports.js';
import { idleCoordinator } from '../../../support/idle-coordinator.js';
import { bridgeCommands } from '../../../../src/qga/commands-bridge.js';

const note = { read: () => undefined, write: () => undefined, remove: () => undefined };
const host = { origin: 'host', name: 'port' } as const;

const heldSession: LocalSession = {
  id: 's1',
  requester: 'test',
  report: freezeReport({ state: 'frozen' }),
  frozenCount: 1,
  thawedCount: 1,
  holdsWriters: false,
  remainingMs: 1,
  ended: new Promise(() => undefined),
  thawed: new Promise(() => undefined),
  breakOff: () => Promise.reject(new Error('not in this test')),
  renew: (remainingMs) => Promise.resolve({ remainingMs }),
  critical: () => Promise.resolve(),
  closeSections: () => Promise.resolve(),
  thaw: () => Promise.resolve(freezeReport()),
};

async function status(coordinator: FreezeEnvironment['coordinator']) {
  const keeper = new SessionKeeper(coordinator, note);
  const answer = await bridgeHandlers({ coordinator, keeper, plainLeaseMs: 1000 })['bridge-status']({}, host);
  // As a client of the same version reads it from the wire.
  return v.parse(bridgeCommands['bridge-status'].returns, JSON.parse(JSON.stringify(answer)));
}

describe('bridge-status', () => {
  test('lists the writers that have not let go', async () => {
    const writer = { session: 's1', name: '10-app', path: '/d/10-app', reason: 'no reply', tries: 3, nextTryMs: 4000 };
    expect(await status({ ...idleCoordinator, unreleased: [writer] })).toMatchObject({
      unreleased: [writer],
      hung: [],
    });
  });

  test('lists the filesystems on which a call has not returned, and for how long', async () => {
    const hung = { mountpoint: '/srv/dead', call: 'freeze', session: 's1' } as const;
    const sinceMs = monotonicMs() - 5000;
    const answer = await status({ ...idleCoordinator, hungFilesystems: () => Promise.resolve([{ ...hung, sinceMs }]) });
    expect(answer).toMatchObject({ unreleased: [], hung: [hung] });
    expect(answer.hung?.[0]?.forMs).toBeGreaterThanOrEqual(5000);
    expect(answer.hung?.[0]?.forMs).toBeLessThan(60_000);
  });

  test('lists the sessions that may be completed', async () => {
    const kept = { session: 's1', requester: 'test', endedForMs: 5, state: 'completed', outcome: 'ok' } as const;
    expect(await status({ ...idleCoordinator, kept: [kept] })).toMatchObject({ kept: [kept] });
  });

  test('lists nothing where nothing was left', async () => {
    expect(await status(idleCoordinator)).toEqual({
      status: { state: 'idle' },
      untold: [],
      unreleased: [],
      kept: [],
      hung: [],
    });
  });
});

describe('bridge-complete', () => {
  const ended = { ...freezeReport({ session: 's1' }) };
  const complete = async (by: ChannelContext) => {
    const session = { ...heldSession, id: 's1', ended: Promise.resolve(ended), thaw: () => Promise.resolve(ended) };
    const coordinator = {
      ...idleCoordinator,
      freeze: () => Promise.resolve(session),
      complete: (id: string, outcome: CompleteOutcome) => Promise.resolve({ session: id, outcome, writers: [] }),
    };
    const keeper = new SessionKeeper(coordinator, note);
    await keeper.freeze({ requester: 'test', session: 's1', leaseMs: 1000, require: 'auto' }, host);
    await keeper.thaw('s1', host);
    const handlers = bridgeHandlers({ coordinator, keeper, plainLeaseMs: 1000 });
    return await handlers['bridge-complete']({ session: 's1', outcome: 'ok' }, by);
  };

  test('is answered as the freeze path says', async () => {
    expect(await complete(host)).toEqual({ completion: { session: 's1', outcome: 'ok', writers: [] } });
  });

  test('is refused to the side that did not hold the session', async () => {
    await expect(complete({ origin: 'guest', name: 'local' })).rejects.toThrow(
      'session s1 was held by test on the host: it alone can complete it',
    );
  });
});
