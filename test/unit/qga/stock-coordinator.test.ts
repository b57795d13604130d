// The coordinator over a stock qemu-ga: at most `filesystem`, only on equal counts, and never left frozen.
import { afterEach, describe, expect, test } from 'vitest';
import { defined } from '../../../src/defined.js';
import type { FreezeRequest } from '../../../src/consistency.js';
import { QuiesceError, StateError, ThawUnconfirmedError } from '../../../src/errors.js';
import { QgaClient } from '../../../src/qga/client.js';
import type { Returns } from '../../../src/qga/commands.js';
import { createRemoteCoordinator, type RemoteCoordinator } from '../../../src/qga/remote-coordinator.js';
import { refuse, type Handlers } from '../../../src/qga/server.js';
import { fakeAgent, type FakeAgent } from './fake-agent.js';

const limits = { askMs: 500, freezeMs: 150, thawTryMs: 150, thawMs: 900 };
const root = { serial: 'a-serial-longer-than-twenty-bytes' };
const data = { pciAddress: '0000:00:05.0' };
const request: FreezeRequest = { requester: 'test', leaseMs: 5000, require: 'auto', disks: [root, data] };
const never = new Promise<never>(() => undefined);

const filesystem = (
  name: string,
  mountpoint: string,
  slot: number,
  members: { serial?: string; type?: string } = {},
): Returns<'guest-get-fsinfo'>[number] => ({
  name,
  mountpoint,
  type: members.type ?? 'ext4',
  disk: [
    {
      'pci-controller': { domain: 0, bus: 0, slot, function: 0 },
      'bus-type': 'virtio',
      bus: 0,
      target: 0,
      unit: 0,
      ...defined({ serial: members.serial }),
    },
  ],
});
const fsinfo = [
  filesystem('vdb1', '/data', 5),
  filesystem('vda1', '/home', 4, { serial: 'a-serial-longer-than' }),
  filesystem('vda1', '/', 4, { serial: 'a-serial-longer-than' }),
];

let agent: FakeAgent;
let client: QgaClient;
afterEach(async () => {
  await client.close();
});

interface Guest {
  readonly freeze?: () => number | Promise<number>;
  readonly thaw?: (frozen: number) => number | Promise<number>;
  readonly fsinfo?: Returns<'guest-get-fsinfo'>;
  readonly handlers?: Partial<Handlers<string>>;
}

/** A guest with two filesystems that really is frozen or thawed. */
async function coordinator(guest: Guest = {}): Promise<RemoteCoordinator> {
  let frozen = 0;
  agent = fakeAgent({
    kind: 'stock',
    isFrozen: () => frozen > 0,
    handlers: {
      'guest-fsfreeze-status': () => (frozen > 0 ? 'frozen' : 'thawed'),
      'guest-get-fsinfo': () => guest.fsinfo ?? fsinfo,
      async 'guest-fsfreeze-freeze'() {
        frozen = (await guest.freeze?.()) ?? 2;
        return frozen;
      },
      'guest-fsfreeze-freeze-list': ({ mountpoints = [] }) => (frozen = mountpoints.length),
      async 'guest-fsfreeze-thaw'() {
        const count = (await guest.thaw?.(frozen)) ?? frozen;
        frozen = 0;
        return count;
      },
      ...guest.handlers,
    },
  });
  client = await QgaClient.connect(agent.stream, { timeoutMs: 1000 });
  return await createRemoteCoordinator(client, limits);
}

const failure = async (work: Promise<unknown>): Promise<unknown> => await work.catch((thrown: unknown) => thrown);

describe('a stock agent', () => {
  test('reaches filesystem when the counts agree and all disks are covered', async () => {
    const guest = await coordinator();
    expect(guest).toMatchObject({ kind: 'stock', version: '7.2.22' });
    const session = await guest.freeze(request);
    expect(session.report).toMatchObject({ state: 'frozen', level: 'filesystem', outcome: 'ok' });
    expect(await guest.status()).toMatchObject({ state: 'frozen', requester: 'test' });
    const report = await session.thaw();
    expect(report).toMatchObject({ state: 'thawed', level: 'filesystem', outcome: 'ok' });
    expect(report.evidence[0]).toMatch(/^stock qemu-ga 7\.2\.22: 2 filesystems frozen and thawed/);
    expect(report.filesystems.map(({ mountpoint, held }) => [mountpoint, held])).toEqual([
      ['/data', 'frozen'],
      ['/home', 'frozen'],
    ]);
    expect(await session.thaw()).toEqual(report);
    expect(agent.calls.filter((name) => name === 'guest-fsfreeze-thaw')).toHaveLength(1);
    expect(await guest.status()).toEqual({ state: 'idle' });
  });

  test.each<[number, string, string[]]>([
    [2, 'filesystem', ['frozen', 'frozen', 'none']],
    [3, 'filesystem', ['frozen', 'frozen', 'none']],
    [1, 'crash', ['none', 'none', 'none']],
  ])('does not count vfat, which cannot freeze: %i frozen is %s', async (frozen, level, held) => {
    const efi = filesystem('vda2', '/boot/efi', 4, { serial: 'a-serial-longer-than', type: 'vfat' });
    const guest = await coordinator({ fsinfo: [...fsinfo, efi], freeze: () => frozen });
    const session = await guest.freeze({ ...request, require: 'crash' });
    expect(session.report.level).toBe(level);
    expect(session.report.filesystems.map((each) => each.held)).toEqual(held);
    await session.thaw();
  });

  test('freezes what is named', async () => {
    const guest = await coordinator();
    const session = await guest.freeze({ ...request, disks: [data], mountpoints: ['/data'] });
    expect(session.report.level).toBe('filesystem');
    expect(agent.calls).toContain('guest-fsfreeze-freeze-list');
    await session.thaw();
  });

  test.each<[string, Guest, Partial<FreezeRequest>, string]>([
    ['fewer were frozen than there are', { freeze: () => 1 }, {}, '1 of 2 filesystems'],
    ['nothing was frozen', { freeze: () => 0 }, {}, 'no filesystem was frozen'],
    ['a disk is not covered', {}, { disks: [{ serial: 'other' }] }, 'no filesystem is known on disk other'],
    ['a filesystem concerned is not named', {}, { mountpoints: ['/data'] }, 'not asked to be frozen: /home'],
    ['a mount point is unknown', {}, { mountpoints: ['/data', '/nope'] }, 'not mounted: /nope'],
  ])('is only worth crash if %s', async (_name, how, members, text) => {
    const guest = await coordinator(how);
    const session = await guest.freeze({ ...request, ...members, require: 'crash' });
    expect(session.report.level).toBe('crash');
    expect(session.report.evidence.join()).toContain(text);
    expect((await session.thaw()).level).toBe('crash');

    const error = await failure(guest.freeze({ ...request, ...members, require: 'filesystem' }));
    expect(error).toBeInstanceOf(QuiesceError);
    expect(String(error)).toContain(text);
    expect(agent.calls.at(-1)).toBe('guest-fsfreeze-thaw');
    expect(await guest.status()).toEqual({ state: 'idle' });
  });

  test('loses its level when a stranger thawed', async () => {
    const guest = await coordinator({ thaw: () => 1 });
    const session = await guest.freeze(request);
    expect(await session.thaw()).toMatchObject({ level: 'crash', outcome: 'broken' });
  });

  test('loses its level when the thaw hook fails, though everything is thawed', async () => {
    let frozen = true;
    const guest = await coordinator({
      handlers: {
        'guest-fsfreeze-status': () => (frozen && agent.calls.includes('guest-fsfreeze-freeze') ? 'frozen' : 'thawed'),
        'guest-fsfreeze-thaw'() {
          frozen = false;
          return refuse('hook has failed with status 3');
        },
      },
    });
    const session = await guest.freeze(request);
    const report = await session.thaw();
    expect(report).toMatchObject({ state: 'thawed', level: 'crash', outcome: 'broken' });
    expect(report.evidence.join()).toContain('hook has failed with status 3');
  });

  test('is thawed again until it says thawed', async () => {
    let tries = 0;
    const guest = await coordinator({ thaw: (frozen) => (++tries < 3 ? refuse('failed to open mtab') : frozen) });
    const session = await guest.freeze(request);
    expect(await session.thaw()).toMatchObject({ state: 'thawed', level: 'crash' });
    expect(tries).toBe(3);
  });

  test('that never says thawed leaves the thaw unconfirmed', async () => {
    const guest = await coordinator({ thaw: () => refuse('no') });
    const session = await guest.freeze(request);
    expect(await failure(session.thaw())).toBeInstanceOf(ThawUnconfirmedError);
  });

  test('whose freeze reply is lost is thawed, and asked whether it is', async () => {
    let release: (count: number) => void = () => undefined;
    const guest = await coordinator({
      freeze: () =>
        new Promise<number>((resolve) => {
          release = resolve;
          setTimeout(() => {
            resolve(2);
          }, 300);
        }),
    });
    const error = await failure(guest.freeze(request));
    release(2);
    expect(error).toBeInstanceOf(QuiesceError);
    expect(String(error)).toContain('guest thawed');
    expect(agent.calls.slice(-2)).toEqual(['guest-fsfreeze-thaw', 'guest-fsfreeze-status']);
  });

  test('whose freeze fails is thawed, for its hook left applications quiesced', async () => {
    const guest = await coordinator({ freeze: () => refuse('failed to freeze /data: Input/output error') });
    expect(String(await failure(guest.freeze(request)))).toContain('failed to freeze /data');
    expect(agent.calls).toContain('guest-fsfreeze-thaw');
  });

  test('that somebody holds is left alone', async () => {
    const guest = await coordinator({ handlers: { 'guest-fsfreeze-status': () => 'frozen' } });
    expect(await failure(guest.freeze(request))).toBeInstanceOf(StateError);
    expect(agent.calls).toEqual(['guest-info', 'guest-fsfreeze-status']);
  });

  test('is not frozen at all for a level it cannot prove', async () => {
    const guest = await coordinator();
    expect(await failure(guest.freeze({ ...request, require: 'application' }))).toBeInstanceOf(QuiesceError);
    expect(agent.calls).toEqual(['guest-info']);
  });

  test('that never answers leaves the thaw unconfirmed', async () => {
    const guest = await coordinator({ freeze: () => never, thaw: () => never });
    expect(await failure(guest.freeze(request))).toBeInstanceOf(ThawUnconfirmedError);
  });

  test('has no writers to name', async () => {
    expect(await (await coordinator()).writers()).toEqual([]);
    expect(await (await coordinator()).complete('s1', 'ok')).toBeUndefined();
  });
});
