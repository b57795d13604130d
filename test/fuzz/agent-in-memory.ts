// The whole agent but for its transport and its freezer: the handlers and the session keeper of src/agent over a
// coordinator that touches nothing, on one host channel in memory.
import type { FreezeReport } from '../../src/consistency.js';
import type { LocalCoordinator, LocalSession } from '../../src/freeze/options.js';
import { bridgeHandlers } from '../../src/agent/handlers/bridge.js';
import { fsfreezeHandlers } from '../../src/agent/handlers/fsfreeze.js';
import type { ChannelContext } from '../../src/agent/origin.js';
import { SessionKeeper } from '../../src/agent/session-keeper.js';
import { commandNames } from '../../src/qga/commands.js';
import { guestAgent, refuse, type Handlers } from '../../src/qga/server.js';
import { Dispatcher } from '../../src/rpc/dispatcher.js';
import type { ByteStream } from '../../src/transport/byte-stream.js';
import { freezeReport } from '../support/freeze-reports.js';

/** Answers one channel until the peer ends its side. */
export function serveInMemory(stream: ByteStream): Promise<void> {
  const coordinator = harmlessCoordinator();
  const keeper = new SessionKeeper(coordinator, {
    read: () => undefined,
    write: () => undefined,
    remove: () => undefined,
  });
  const freezing = { coordinator, keeper, plainLeaseMs: 60_000 };
  // A command that would touch this machine is refused by its handler; its arguments are checked before.
  const untouched = Object.fromEntries(commandNames.map((name) => [name, () => refuse(`${name} is not run here`)]));
  const handlers = {
    ...(untouched as unknown as Handlers<ChannelContext>),
    ...fsfreezeHandlers(freezing),
    ...bridgeHandlers(freezing),
    'guest-get-fsinfo': () => [{ name: 'vda1', mountpoint: '/', type: 'ext4', disk: [] }],
    'guest-get-osinfo': () => ({ id: 'debian', 'kernel-release': '6.1.0' }),
    'guest-get-host-name': () => ({ 'host-name': 'guest' }),
    'guest-get-time': () => 1_700_000_000_000_000_000n,
  };
  const isFrozen = (): boolean => coordinator.session !== undefined;
  const policy = { compat: '10.2', blocked: new Set(['guest-get-time']), isFrozen } as const;
  const context: ChannelContext = { origin: 'host', name: 'in memory' };
  return new Dispatcher<ChannelContext>(guestAgent(handlers, policy, '10.2.2')).serve(stream, context);
}

function harmlessCoordinator(): LocalCoordinator {
  let session: LocalSession | undefined;
  let last: FreezeReport | undefined;
  return {
    get session() {
      return session;
    },
    get lastReport() {
      return last;
    },
    freeze({ session: id = 'made-up', requester }) {
      const report = { ...freezeReport(), session: id, requester };
      const thawed = (): Promise<FreezeReport> => {
        session = undefined;
        last = { ...report, state: 'thawed' };
        return Promise.resolve(last);
      };
      session = {
        id,
        requester,
        report: { ...report, state: 'frozen' },
        frozenCount: 1,
        thawedCount: 1,
        holdsWriters: false,
        remainingMs: 1000,
        ended: new Promise(() => undefined),
        thawed: new Promise(() => undefined),
        breakOff: thawed,
        renew: (remainingMs) => Promise.resolve({ remainingMs }),
        critical: () => Promise.resolve(),
        closeSections: () => Promise.resolve(),
        thaw: thawed,
      };
      return Promise.resolve(session);
    },
    status: () => Promise.resolve(session === undefined ? { state: 'idle' } : { state: 'frozen', session: session.id }),
    writers: () => Promise.resolve([]),
    complete: (id, outcome) => Promise.resolve({ session: id, outcome, writers: [] }),
    kept: [],
    unreleased: [],
    warmUp: () => Promise.resolve(),
    hungFilesystems: () => Promise.resolve([]),
    close: () => Promise.resolve(),
  };
}
