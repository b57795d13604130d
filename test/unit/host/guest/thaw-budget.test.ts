// How long a thaw is tried, whoever asks for it and however often.
import { expect, test } from 'vitest';
import { QuiesceError, ThawUnconfirmedError, UnreachableError } from '../../../../src/errors.js';
import type { GuestAgent } from '../../../../src/host/guest/guest-agent.js';
import { quiesce } from '../../../../src/host/guest/quiesce.js';
import { thawUntilConfirmed } from '../../../../src/host/guest/thaw-guest.js';
import { Reverter } from '../../../../src/reverter.js';

/** An agent whose freeze ends with a thaw that the coordinator could not have confirmed; `thaw` is what it does then. */
function agent(thaw: GuestAgent['thaw']): GuestAgent {
  return {
    coordinator: {
      freeze: () =>
        Promise.reject(new ThawUnconfirmedError('E_THAW_UNCONFIRMED', 'tried for long', { outcome: 'unknown' })),
      status: () => Promise.resolve({ state: 'idle' }),
      writers: () => Promise.resolve([]),
      complete: () => Promise.resolve(undefined),
    },
    kind: 'stock',
    version: '1',
    thaw,
    machineUuid: () => Promise.resolve(undefined),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

const request = { requester: 'test', session: 's', leaseMs: 300_000, require: 'auto' } as const;
const never = new AbortController().signal;

test('a budget that the coordinator has spent leaves one more try, and so does each that follows', async () => {
  const limits: (number | undefined)[] = [];
  let isBack = false;
  const guest = agent((_session, limitMs) => {
    limits.push(limitMs);
    return isBack ? Promise.resolve({ wasFrozen: true }) : Promise.reject(new UnreachableError('E_NO_AGENT', 'gone'));
  });
  const reverter = new Reverter();
  const started = performance.now();
  const work = quiesce(guest, request, reverter, {}, never, 400_000);
  await expect(work).rejects.toBeInstanceOf(ThawUnconfirmedError);
  expect(performance.now() - started).toBeLessThan(6000);
  expect(limits.length).toBeGreaterThan(1);
  // As long as hooks may take that let go in it; an agent that is gone says so at once.
  expect(Math.max(...limits.map((limitMs) => limitMs ?? Infinity))).toBeLessThanOrEqual(15_000);
  isBack = true;
  await reverter.revert();
  await reverter.revert();
}, 20_000);

test("the guest is asked past its lease's end if that is later than the coordinator's budget", async () => {
  const guest = agent((_session, limitMs = 0) => {
    expect(limitMs).toBeGreaterThan(170_000);
    return Promise.resolve({ wasFrozen: true });
  });
  const work = quiesce(guest, request, new Reverter(), {}, never, 120_000);
  await expect(work).rejects.toBeInstanceOf(QuiesceError);
});

test('no attempt is given more time than is left, and one that thawed unseen counts', async () => {
  const limits: number[] = [];
  const thaw: GuestAgent['thaw'] = (_session, limitMs = 0) => {
    limits.push(limitMs);
    return limits.length < 3
      ? Promise.reject(new UnreachableError('E_NO_AGENT', 'gone'))
      : Promise.resolve({ wasFrozen: false });
  };
  expect(await thawUntilConfirmed(agent(thaw), 2000)).toEqual({ wasFrozen: true });
  expect(limits).toEqual([...limits].sort((a, b) => b - a));
  expect(limits[0]).toBeLessThanOrEqual(2000);
  expect(limits[2]).toBeLessThanOrEqual(1500);
});
