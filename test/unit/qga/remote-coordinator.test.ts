// The coordinator over our own agent: what a lost reply, a refusal and a silent agent lead to. The guest is thawed in
// every case, or the error says that nobody knows.
import { afterEach, describe, expect, test } from 'vitest';
import type { FreezeRequest } from '../../../src/consistency.js';
import { QuiesceError, StateError, ThawUnconfirmedError, UsageError } from '../../../src/errors.js';
import { QgaClient } from '../../../src/qga/client.js';
import { createRemoteCoordinator, type RemoteCoordinator } from '../../../src/qga/remote-coordinator.js';
import { refuse, type Handlers } from '../../../src/qga/server.js';
import { fakeAgent, type FakeAgent } from './fake-agent.js';
import { freezeReport } from './reports.js';

const limits = { askMs: 500, freezeMs: 150, thawTryMs: 200, thawMs: 900 };
const request: FreezeRequest = { requester: 'test', session: 's1', leaseMs: 5000, require: 'filesystem' };
const thawed = freezeReport({ state: 'thawed', outcome: 'failed', error: 'given up' });
const never = new Promise<never>(() => undefined);

let agent: FakeAgent;
let client: QgaClient;
afterEach(async () => {
  await client.close();
});

async function coordinator(handlers: Partial<Handlers<string>>): Promise<RemoteCoordinator> {
  agent = fakeAgent({ kind: 'bridge', handlers });
  client = await QgaClient.connect(agent.stream, { timeoutMs: 1000 });
  return await createRemoteCoordinator(client, limits);
}

const failure = async (work: Promise<unknown>): Promise<unknown> => await work.catch((thrown: unknown) => thrown);

describe('our agent', () => {
  test('is asked as its schema says, and its session renewed and thawed once', async () => {
    let asked: unknown;
    const guest = await coordinator({
      'bridge-freeze'(args) {
        asked = args;
        return { report: freezeReport() };
      },
      'bridge-renew': (args) => ({ 'remaining-ms': args['lease-ms'] - 0.5 }),
      'bridge-thaw': () => ({ report: freezeReport({ state: 'thawed' }) }),
    });
    const disks = [{ serial: 'root', pciAddress: '0000:00:04.0', dev: '/dev/vda' }];
    const session = await guest.freeze({ ...request, disks, mountpoints: ['/'], leave: ['/'] });
    expect(asked).toEqual({
      session: 's1',
      requester: 'test',
      'lease-ms': 5000,
      require: 'filesystem',
      disks: [{ serial: 'root', 'pci-address': '0000:00:04.0' }],
      mountpoints: ['/'],
      leave: ['/'],
      'ends-with-channel': false,
    });
    expect(session.report).toEqual(freezeReport());
    expect(await session.renew(700)).toEqual({ remainingMs: 699.5 });
    expect(await session.thaw()).toMatchObject({ state: 'thawed', level: 'application' });
    expect(await session.thaw()).toBe(session.report);
    expect(agent.calls).toEqual(['guest-info', 'bridge-freeze', 'bridge-renew', 'bridge-thaw']);
    expect(guest).toMatchObject({ kind: 'bridge', version: '0.1' });
  });

  test('that refuses gives its reason and its report', async () => {
    const report = freezeReport({ state: 'thawed', outcome: 'failed', error: 'writer x: exit 1' });
    const guest = await coordinator({
      'bridge-freeze': () => refuse('writer x failed: exit 1'),
      'bridge-status': () => ({ status: { state: 'idle' }, report }),
    });
    const error = await failure(guest.freeze(request));
    expect(error).toBeInstanceOf(QuiesceError);
    expect(error).toMatchObject({ message: 'writer x failed: exit 1', facts: { report } });
    expect(agent.calls).not.toContain('bridge-thaw');
  });

  test.each(['s1', 'an earlier one'])('that could not thaw %s leaves the thaw unconfirmed', async (session) => {
    const report = freezeReport({ session, state: 'frozen', outcome: 'failed', error: 'nobody confirmed the thaw' });
    const guest = await coordinator({
      'bridge-freeze': () => refuse('nobody confirmed the thaw'),
      'bridge-thaw': () => (session === 's1' ? { report } : refuse('no session s1')),
      'bridge-status': () => ({ status: { state: 'idle' }, report }),
    });
    expect(await failure(guest.freeze(request))).toBeInstanceOf(ThawUnconfirmedError);
    expect(agent.calls).toContain('bridge-thaw');
  });

  test('that refuses and then does not answer leaves the thaw unconfirmed', async () => {
    const guest = await coordinator({
      'bridge-freeze': () => refuse('the freezer is gone'),
      'bridge-status': () => never,
      'bridge-thaw': () => never,
    });
    expect(await failure(guest.freeze(request))).toBeInstanceOf(ThawUnconfirmedError);
  });

  test('that another holds is left alone', async () => {
    const guest = await coordinator({
      'bridge-freeze': () => refuse('held by backup'),
      'bridge-status': () => ({ status: { state: 'frozen', session: 'other', requester: 'backup' } }),
    });
    const error = await failure(guest.freeze(request));
    expect(error).toBeInstanceOf(StateError);
    expect(String(error)).toContain('backup, session other');
    expect(agent.calls).not.toContain('bridge-thaw');
  });

  test('whose freeze reply is lost is resynced and thawed', async () => {
    const guest = await coordinator({
      'bridge-freeze': () => never,
      'bridge-thaw': ({ session }) => ({ report: { ...thawed, session } }),
    });
    const error = await failure(guest.freeze(request));
    expect(error).toBeInstanceOf(QuiesceError);
    expect(error).toMatchObject({ code: 'E_QUIESCE_LOST', facts: { report: { session: 's1', state: 'thawed' } } });
    expect(agent.calls).toEqual(['guest-info', 'bridge-freeze', 'bridge-thaw']);
  });

  test('is thawed when the requester gives up', async () => {
    const controller = new AbortController();
    const guest = await coordinator({
      'bridge-freeze'() {
        controller.abort();
        return never;
      },
      'bridge-thaw': () => ({ report: thawed }),
    });
    expect(await failure(guest.freeze(request, controller.signal))).toBeInstanceOf(QuiesceError);
    expect(agent.calls.at(-1)).toBe('bridge-thaw');
  });

  test('of a later version may say more than we know', async () => {
    const later = {
      ...freezeReport(),
      mood: 'fine',
      steps: [{ step: 'freeze' as const, startMs: 0, endMs: 1, cpu: 3 }],
    };
    const guest = await coordinator({ 'bridge-freeze': () => ({ report: later }) });
    const { report } = await guest.freeze(request);
    expect(report).toEqual(freezeReport({ steps: [{ step: 'freeze', startMs: 0, endMs: 1 }] }));
  });

  test('that sends a report we cannot read is thawed too', async () => {
    const guest = await coordinator({
      'bridge-freeze': () => ({ report: { ...freezeReport(), level: 7 as never } }),
      'bridge-thaw': () => ({ report: thawed }),
    });
    expect(await failure(guest.freeze(request))).toMatchObject({ code: 'E_QUIESCE_LOST' });
    expect(agent.calls.at(-1)).toBe('bridge-thaw');
  });

  test('is asked to thaw until it confirms', async () => {
    let tries = 0;
    const guest = await coordinator({
      'bridge-freeze': () => ({ report: freezeReport() }),
      'bridge-thaw': () =>
        ++tries < 3 ? refuse('vdb does not answer') : { report: freezeReport({ state: 'thawed' }) },
      'bridge-status': () => ({ status: { state: 'thawing', session: 's1' }, report: freezeReport() }),
    });
    const session = await guest.freeze(request);
    expect(await session.thaw()).toMatchObject({ state: 'thawed' });
    expect(tries).toBe(3);
  });

  test.each(['does not answer', 'says it cannot'])('that %s leaves the thaw unconfirmed', async (how) => {
    const guest = await coordinator({
      'bridge-freeze': () => ({ report: freezeReport() }),
      'bridge-thaw': () => (how === 'does not answer' ? never : refuse('no')),
      'bridge-status': () => ({ status: { state: 'frozen', session: 's1' }, report: freezeReport() }),
    });
    const session = await guest.freeze(request);
    const error = await failure(session.thaw());
    expect(error).toBeInstanceOf(ThawUnconfirmedError);
    expect(error).toMatchObject({ outcome: 'unknown' });
  });

  test.each(['answers a report that says frozen', 'refuses'])('that is idle and %s confirms no thaw', async (how) => {
    const report = freezeReport({ state: 'frozen', outcome: 'broken', error: 'nobody confirmed the thaw' });
    const guest = await coordinator({
      'bridge-freeze': () => ({ report: freezeReport() }),
      'bridge-thaw': () => (how === 'refuses' ? refuse('nobody confirmed the thaw') : { report }),
      'bridge-status': () => ({ status: { state: 'idle' }, report }),
    });
    const session = await guest.freeze(request);
    expect(await failure(session.thaw())).toBeInstanceOf(ThawUnconfirmedError);
  });

  test('started anew knows the session no more: thawed, but not proved', async () => {
    const guest = await coordinator({
      'bridge-freeze': () => ({ report: freezeReport() }),
      'bridge-thaw': () => refuse('no session s1'),
      'bridge-status': () => ({ status: { state: 'idle' } }),
    });
    const session = await guest.freeze(request);
    expect(await session.thaw()).toMatchObject({ state: 'thawed', outcome: 'broken', level: 'crash' });
  });

  test('whose lease has ended says so at renewal', async () => {
    const guest = await coordinator({
      'bridge-freeze': () => ({ report: freezeReport() }),
      'bridge-renew': () => refuse('the lease ended 3 s ago'),
    });
    const session = await guest.freeze(request);
    expect(await failure(session.renew(1))).toMatchObject({ name: 'QuiesceError', message: 'the lease ended 3 s ago' });
  });

  test('is told to thaw at once, though a renewal is not answered', async () => {
    const guest = await coordinator({
      'bridge-freeze': () => ({ report: freezeReport() }),
      'bridge-renew': () => new Promise((resolve) => setTimeout(resolve, 100, { 'remaining-ms': 1 })),
      'bridge-thaw': () => ({ report: freezeReport({ state: 'thawed' }) }),
    });
    const session = await guest.freeze(request);
    const controller = new AbortController();
    const renewal = failure(session.renew(1, controller.signal));
    await new Promise((resolve) => setTimeout(resolve, 20));
    controller.abort();
    expect(await renewal).toMatchObject({ code: 'E_ABORTED', outcome: 'unknown' });
    expect(await session.thaw()).toMatchObject({ state: 'thawed' });
  });

  test('is told what became of the cut, and says why it cannot tell its writers', async () => {
    const completion = { session: 's1', outcome: 'ok' as const, writers: [] };
    const guest = await coordinator({
      'bridge-complete': ({ session }) => (session === 's1' ? { completion } : refuse(`no session '${session}'`)),
    });
    expect(await guest.complete('s1', 'ok')).toEqual(completion);
    const error = await failure(guest.complete('s2', 'ok'));
    expect(error).toMatchObject({ name: 'QuiesceError', message: "no session 's2'" });
  });

  test('is not asked for what bridge-freeze does not know', async () => {
    const guest = await coordinator({});
    expect(await failure(guest.freeze({ ...request, require: 'plain' }))).toBeInstanceOf(UsageError);
    expect(agent.calls).toEqual(['guest-info']);
  });
});
