import { describe, expect, test } from 'vitest';
import type { Coordinator, FreezeRequest, FreezeSession } from '../../../../src/consistency.js';
import {
  DeadlineError,
  QuiesceError,
  StateError,
  ThawUnconfirmedError,
  UnreachableError,
} from '../../../../src/errors.js';
import type { GuestAgent } from '../../../../src/host/guest/guest-agent.js';
import type { Marks } from '../../../../src/host/sets/point-in-time.js';
import { quiesce } from '../../../../src/host/guest/quiesce.js';
import { Reverter } from '../../../../src/reverter.js';
import { freezeReport } from '../../../support/freeze-reports.js';

const request = { requester: 'test', session: 's', leaseMs: 60, require: 'auto' } as const;
const never = new AbortController().signal;

interface Fake {
  readonly agent: GuestAgent;
  readonly calls: string[];
}

function fake(behaviour: {
  freeze?: (request: FreezeRequest) => Promise<FreezeSession>;
  thaw?: () => Promise<{ wasFrozen: boolean }>;
  sessionThaw?: FreezeSession['thaw'];
  renew?: FreezeSession['renew'];
}): Fake {
  const calls: string[] = [];
  const session: FreezeSession = {
    id: 's',
    report: freezeReport({ state: 'frozen' }),
    renew: (leaseMs, signal) => {
      calls.push('renew');
      return behaviour.renew?.(leaseMs, signal) ?? Promise.resolve({ remainingMs: leaseMs });
    },
    thaw: () => {
      calls.push('session.thaw');
      return behaviour.sessionThaw?.() ?? Promise.resolve(freezeReport());
    },
  };
  const coordinator: Coordinator = {
    freeze: (asked) => {
      calls.push('freeze');
      return behaviour.freeze?.(asked) ?? Promise.resolve(session);
    },
    status: () => Promise.resolve({ state: 'idle' }),
    writers: () => Promise.resolve([]),
    complete: () => Promise.resolve(undefined),
  };
  const agent: GuestAgent = {
    coordinator,
    kind: 'bridge',
    version: '1',
    thaw: (id) => {
      calls.push(`thaw ${id ?? 'all'}`);
      return behaviour.thaw?.() ?? Promise.resolve({ wasFrozen: true });
    },
    machineUuid: () => Promise.resolve(undefined),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  return { agent, calls };
}
const lost = (): Promise<never> => Promise.reject(new DeadlineError('bridge-freeze', 10, { outcome: 'unknown' }));

describe('quiesce', () => {
  test('renews the lease while the guest is held, and thaws once', async () => {
    const { agent, calls } = fake({});
    const marks: Marks = {};
    const reverter = new Reverter();
    const hold = await quiesce(agent, request, reverter, marks, never);
    await new Promise((resolve) => setTimeout(resolve, 90));
    expect(calls.filter((call) => call === 'renew').length).toBeGreaterThanOrEqual(2);
    const first = await hold.thaw();
    expect(await hold.thaw()).toBe(first);
    await reverter.revert();
    calls.splice(0, calls.lastIndexOf('session.thaw'));
    await new Promise((resolve) => setTimeout(resolve, 50));
    // No renewal after the thaw, no second thaw by the undo.
    expect(calls).toEqual(['session.thaw']);
    expect(marks.freezeRequestedMs).toBeLessThanOrEqual(marks.freezeAnsweredMs ?? 0);
    expect(marks.thawRequestedMs).toBeLessThanOrEqual(marks.thawAnsweredMs ?? 0);
  });

  test('registers the thaw before it asks for the freeze', async () => {
    const reverter = new Reverter();
    const { agent, calls } = fake({
      freeze: async () => {
        await reverter.revert();
        throw new QuiesceError('E_QUIESCE', 'x');
      },
    });
    await expect(quiesce(agent, request, reverter, {}, never)).rejects.toThrow('x');
    expect(calls).toEqual(['freeze', 'thaw s']);
  });

  test('thaws by the undo if nobody did', async () => {
    const { agent, calls } = fake({});
    const reverter = new Reverter();
    await quiesce(agent, { ...request, leaseMs: 10_000 }, reverter, {}, never);
    await reverter.revert();
    expect(calls).toEqual(['freeze', 'thaw s']);
  });

  test('thaws although the answer to the freeze was lost', async () => {
    const { agent, calls } = fake({ freeze: lost });
    const work = quiesce(agent, request, new Reverter(), {}, never);
    await expect(work).rejects.toMatchObject({ code: 'E_FREEZE_LOST' });
    await expect(work).rejects.toBeInstanceOf(QuiesceError);
    expect(calls).toEqual(['freeze', 'thaw s']);
  });

  test('tries the thaw again until it is confirmed', async () => {
    let attempts = 0;
    const thaw = (): Promise<{ wasFrozen: boolean }> => {
      attempts++;
      return attempts < 3
        ? Promise.reject(new UnreachableError('E_CLOSED', 'gone'))
        : Promise.resolve({ wasFrozen: true });
    };
    const { agent } = fake({ freeze: lost, thaw });
    await expect(quiesce(agent, request, new Reverter(), {}, never)).rejects.toBeInstanceOf(QuiesceError);
    expect(attempts).toBe(3);
  });

  test.each([
    new QuiesceError('E_QUIESCE', 'refused'),
    new StateError('freeze', 'frozen', ['idle']),
    new UnreachableError('E_CLOSED', 'no'),
  ])('passes on %s without a thaw: the guest is as it was', async (error) => {
    const { agent, calls } = fake({ freeze: () => Promise.reject(error) });
    const reverter = new Reverter();
    await expect(quiesce(agent, request, reverter, {}, never)).rejects.toBe(error);
    await reverter.revert();
    expect(calls).toEqual(['freeze']);
  });

  test('calls a session that is lost at the thaw broken, once the guest says it is thawed', async () => {
    const { agent, calls } = fake({ sessionThaw: () => Promise.reject(new UnreachableError('E_CLOSED', 'gone')) });
    const hold = await quiesce(agent, { ...request, leaseMs: 10_000 }, new Reverter(), {}, never);
    expect(await hold.thaw()).toMatchObject({ state: 'thawed', outcome: 'broken', level: 'crash', error: 'gone' });
    expect(calls).toEqual(['freeze', 'session.thaw', 'thaw s']);
  });

  test('does not claim a thaw that nobody confirms', { timeout: 20_000 }, async () => {
    const gone = (): Promise<never> => Promise.reject(new UnreachableError('E_CLOSED', 'gone'));
    const { agent } = fake({ sessionThaw: gone, thaw: gone });
    const hold = await quiesce(agent, request, new Reverter(), {}, never);
    await expect(hold.thaw()).rejects.toBeInstanceOf(ThawUnconfirmedError);
  });

  test('does not take a final report that says frozen for a thaw', async () => {
    const { agent, calls } = fake({ sessionThaw: () => Promise.resolve(freezeReport({ state: 'frozen' })) });
    const hold = await quiesce(agent, { ...request, leaseMs: 10_000 }, new Reverter(), {}, never);
    expect(await hold.thaw()).toMatchObject({ state: 'thawed', outcome: 'broken', level: 'crash' });
    expect(calls).toEqual(['freeze', 'session.thaw', 'thaw s']);
  });

  test('leaves the undo to try again after a thaw that nobody confirmed', { timeout: 20_000 }, async () => {
    let isGone = true;
    const gone = (): Promise<never> => Promise.reject(new UnreachableError('E_CLOSED', 'gone'));
    const { agent, calls } = fake({
      freeze: lost,
      thaw: () => (isGone ? gone() : Promise.resolve({ wasFrozen: true })),
    });
    const reverter = new Reverter();
    await expect(quiesce(agent, request, reverter, {}, never)).rejects.toBeInstanceOf(ThawUnconfirmedError);
    isGone = false;
    calls.length = 0;
    await reverter.revert();
    expect(calls).toEqual(['thaw s']);
  });

  test('renews one at a time, and gives a renewal up for the thaw', async () => {
    let signalled: AbortSignal | undefined;
    const { agent, calls } = fake({
      renew: (_leaseMs, signal) => {
        signalled = signal;
        return new Promise((_resolve, reject) => {
          signal?.addEventListener('abort', () => {
            reject(new UnreachableError('E_ABORTED', 'given up'));
          });
        });
      },
    });
    const hold = await quiesce(agent, request, new Reverter(), {}, never);
    await new Promise((resolve) => setTimeout(resolve, 90));
    expect(calls).toEqual(['freeze', 'renew']);
    expect(signalled?.aborted).toBe(false);
    await hold.thaw();
    expect(signalled?.aborted).toBe(true);
    expect(hold.lost).toBeUndefined();
  });

  test('tells that a renewal was refused', async () => {
    const { agent } = fake({ renew: () => Promise.reject(new QuiesceError('E_QUIESCE', 'the lease has ended')) });
    const hold = await quiesce(agent, request, new Reverter(), {}, never);
    expect(hold.lost).toBeUndefined();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(hold.lost).toBe('the lease has ended');
    await hold.thaw();
  });
});
