// What counts as a confirmed thaw when no session object is at hand.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openGuestAgent, type GuestAgent } from '../../../../src/host/guest/guest-agent.js';
import { FakeAgent } from '../../../support/fake-agent.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
let guest: FakeAgent;
let agent: GuestAgent;
beforeEach(async () => {
  folder = scratch();
  guest = await FakeAgent.listen(folder.path('qga.sock'));
  agent = await openGuestAgent(guest.path, { answerMs: 1000, freezeMs: 1000, thawMs: 1000 });
});
afterEach(async () => {
  await agent[Symbol.asyncDispose]();
  await guest[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

const freeze = async (): Promise<void> => {
  await agent.coordinator.freeze({ requester: 'test', session: 's', leaseMs: 1000, require: 'auto' });
};

describe('a thaw', () => {
  test('of a guest that is not frozen is sent all the same', async () => {
    expect(await agent.thaw()).toEqual({ wasFrozen: false });
    expect(guest.commands).toContain('guest-fsfreeze-thaw');
  });

  test('ends what is held', async () => {
    await freeze();
    expect(await agent.thaw()).toEqual({ wasFrozen: true });
    expect(guest.frozen).toBe(false);
  });

  test('ends the session named, and leaves another alone', async () => {
    await freeze();
    expect(await agent.thaw('other')).toEqual({ wasFrozen: false });
    expect(guest.frozen).toBe(true);
    expect(await agent.thaw('s')).toEqual({ wasFrozen: true });
    expect(await agent.thaw('s')).toEqual({ wasFrozen: false });
  });

  test.each([undefined, 's', 'later'])(
    'that the agent gave up (%s) is not confirmed by its being idle',
    async (session) => {
      await freeze();
      guest.mood = 'gives-up';
      await agent.thaw('s').catch(() => undefined);
      for (let attempt = 0; attempt < 2; attempt++) {
        await expect(agent.thaw(session)).rejects.toMatchObject({ code: 'E_THAW_UNCONFIRMED' });
        expect(await agent.coordinator.status()).toEqual({ state: 'idle' });
      }
    },
  );
});
