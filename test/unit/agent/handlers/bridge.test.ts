// bridge-status on earlier sessions, with a coordinator that is played by the test.
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { bridgeHandlers } from '../../../../src/agent/handlers/bridge.js';
import type { FreezeEnvironment } from '../../../../src/agent/handlers/types.js';
import { SessionKeeper } from '../../../../src/agent/session-keeper.js';
import { monotonicMs } from '../../../../src/linux/clock.js';
import { idleCoordinator } from '../../../support/idle-coordinator.js';
import { bridgeCommands } from '../../../../src/qga/commands-bridge.js';

const note = { read: () => undefined, write: () => undefined, remove: () => undefined };
const host = { origin: 'host', name: 'port' } as const;

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

  test('lists nothing where nothing was left', async () => {
    expect(await status(idleCoordinator)).toEqual({ status: { state: 'idle' }, untold: [], unreleased: [], hung: [] });
  });
});
