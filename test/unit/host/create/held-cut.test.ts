// What ends a hold badly, and which error is told of it.
import { describe, expect, test } from 'vitest';
import { QuiesceError, ThawUnconfirmedError, UnreachableError } from '../../../../src/errors.js';
import { openGuestAgent, type GuestAgent } from '../../../../src/host/guest/guest-agent.js';
import { holdAndCut } from '../../../../src/host/create/held-cut.js';
import { overlayCut } from '../../../../src/host/create/overlay-cut.js';
import type { CutHost } from '../../../../src/host/vm/hypervisor.js';
import { PlainQemu } from '../../../../src/host/vm/plain-qemu.js';
import { Reverter } from '../../../../src/reverter.js';
import { FakeAgent } from '../../../support/fake-agent.js';
import { FakeMonitor } from '../../../support/fake-monitor.js';
import { scratch } from '../../../support/scratch.js';

test('tells of an unconfirmed thaw although the tool was interrupted', { timeout: 20_000 }, async () => {
  const controller = new AbortController();
  const gone = (): Promise<never> => Promise.reject(new UnreachableError('E_CLOSED', 'gone', { outcome: 'unknown' }));
  const agent: GuestAgent = {
    coordinator: {
      freeze() {
        controller.abort('SIGTERM');
        return gone();
      },
      status: () => Promise.resolve({ state: 'idle' }),
      writers: () => Promise.resolve([]),
      complete: () => Promise.resolve(undefined),
    },
    kind: 'bridge',
    version: '1',
    thaw: gone,
    machineUuid: () => Promise.resolve(undefined),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const options = {
    agent,
    whyNoAgent: undefined,
    refs: [],
    cutDisks: [],
    agentSocket: undefined,
    requirement: { asked: 'auto', allowLower: false },
    session: 's',
    leaseMs: 1,
    cutTimeoutMs: 1,
    signal: controller.signal,
  } as const;
  // The monitor is not reached.
  const host = undefined as unknown as CutHost;
  const work = holdAndCut(host, overlayCut(host, []), new Reverter(), {}, options);
  await expect(work).rejects.toBeInstanceOf(ThawUnconfirmedError);
});

describe('a freeze whose answer does not come', () => {
  /** Tells that ports were closed while the freeze is waited for; gives what the hold ended with, and after how long. */
  async function holdWhile(chardevs: readonly object[], freezeMs: number): Promise<{ error: unknown; tookMs: number }> {
    using folder = scratch();
    await using guest = await FakeAgent.listen(folder.path('qga.sock'));
    await using fake = await FakeMonitor.listen(folder.path('qmp.sock'), {
      handlers: { 'query-chardev': () => chardevs.map((each) => ({ label: 'c', filename: '', ...each })) },
    });
    guest.mood = 'loses-freeze';
    guest.onFreeze = () => {
      fake.event('VSERPORT_CHANGE', { id: 'port', open: false });
    };
    await using monitor = await PlainQemu.connect(fake.path, {});
    await using agent = await openGuestAgent(guest.path, { answerMs: 1000, freezeMs, thawMs: 1000 });
    const started = performance.now();
    const error: unknown = await holdAndCut(
      monitor,
      overlayCut(monitor, []),
      new Reverter(),
      {},
      {
        agent,
        whyNoAgent: undefined,
        refs: [],
        cutDisks: [],
        agentSocket: '/run/qga.sock',
        requirement: { asked: 'auto', allowLower: false },
        session: 's',
        leaseMs: 1000,
        cutTimeoutMs: 1000,
        signal: new AbortController().signal,
      },
    ).catch((thrown: unknown) => thrown);
    expect(guest.commands).toContain('bridge-thaw');
    expect(guest.frozen).toBe(false);
    expect(fake.commands).not.toContain('transaction');
    return { error, tookMs: performance.now() - started };
  }
  const open = { filename: 'unix:/run/qga.sock,server=on', 'frontend-open': true };

  test.each([
    [
      "the agent's",
      [
        { ...open, 'frontend-open': false },
        { filename: 'pty', 'frontend-open': true },
      ],
    ],
    ["one that may be the agent's", [{ filename: 'pty', 'frontend-open': false }]],
  ])('is given up, and the guest thawed, when the guest closes %s port', async (_whose, chardevs) => {
    const { error, tookMs } = await holdWhile(chardevs, 30_000);
    expect(error).toBeInstanceOf(QuiesceError);
    expect(String(error)).toContain("the guest's agent closed its port");
    expect(tookMs).toBeLessThan(5000);
  });

  test('is waited for while the agent has its port open', async () => {
    const { error, tookMs } = await holdWhile([{ filename: 'pty', 'frontend-open': false }, open], 400);
    expect(String(error)).not.toContain('closed its port');
    expect(tookMs).toBeGreaterThan(390);
  });
});
