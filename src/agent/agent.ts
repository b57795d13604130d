// The guest daemon: channels on one side, the coordinator on the other, the dispatcher between. It owns when the log is
// held back, what runs while frozen, and the way out: whatever ends the agent, what is frozen is thawed first.
import type { WriterListing } from '../consistency.js';
import { withLimit } from '../deadline.js';
import { describeError } from '../errors.js';
import type { CoordinatorOptions, LocalCoordinator } from '../freeze/options.js';
import type { WriterFolder } from '../freeze/writers/folders.js';
import { watchWriters } from '../freeze/writers/watch.js';
import type { HeldLogger } from '../log.js';
import type { PolicyPreset } from '../qga/command.js';
import { listsOf } from '../qga/policy.js';
import { guestAgent, whyDisabled, type Compat, type Policy } from '../qga/server.js';
import { Dispatcher } from '../rpc/dispatcher.js';
import type { ByteStream, Listener } from '../transport/byte-stream.js';
import { accounted } from './audit-log.js';
import { openHostChannel, openLocalSocket, type HostChannelOptions } from './channels.js';
import { collectAtRest, tuneForRareCalls } from './v8-tuning.js';
import { bridgeHandlers } from './handlers/bridge.js';
import { filesystemHandlers } from './handlers/filesystems.js';
import { fsfreezeHandlers } from './handlers/fsfreeze.js';
import { guestHandlers } from './handlers/join.js';
import { systemHandlers } from './handlers/system.js';
import { owedNote } from './late-thaw-note.js';
import type { ChannelContext, Origin } from './origin.js';
import { SessionKeeper } from './session-keeper.js';
import { defaultSources } from './kernel-files.js';
import { REPORTED_VERSION } from './version.js';

/** For files that are still open when the agent ends. */
const LAST_CLOSE_LIMIT_MS = 1000;

export interface AgentOptions {
  readonly channel: Pick<HostChannelOptions, 'method' | 'path' | 'retry' | 'activated'>;
  /** What guest-info answers; without it, our version. */
  readonly reportVersion?: string;
  /** Without it, no local socket. */
  readonly localSocket?: string;
  readonly compat: Compat;
  readonly blockRpcs: readonly string[];
  readonly allowRpcs: readonly string[];
  /** What the host may ask for; `default` if not given. */
  readonly policy?: PolicyPreset;
  /** And besides. */
  readonly alsoAllow?: readonly string[];
  readonly plainLeaseMs: number;
  /** On tmpfs: for its note of what the host is owed. */
  readonly runtimeDir: string;
  /** Only if a dead predecessor's filesystems may still be frozen: settles when they are not, and never rejects. */
  readonly recovered?: Promise<void>;
  /** Watched, so that a bad hook is told of when it is dropped in. */
  readonly writerFolders: readonly WriterFolder[];
  readonly logger: HeldLogger;
  /** Makes the coordinator, which is given the agent's log and told of by these. */
  readonly createCoordinator: (
    wiring: Pick<CoordinatorOptions, 'log' | 'onHold' | 'onReleased' | 'onWritable' | 'view'>,
  ) => LocalCoordinator;
}

export interface Agent {
  /** Settles when a channel is lost for good. Never rejects. */
  readonly lost: Promise<Error>;
  /**
   * Thaws and releases what is held, then closes the channels. Throws ThawUnconfirmedError if a filesystem is not
   * known to be thawed; the channels are closed all the same.
   */
  stop(): Promise<void>;
}

/** Starts to serve. Throws a BridgeError if a channel cannot be opened; nothing is left open then. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { logger, compat, blockRpcs, allowRpcs } = options;
  const { log } = logger;
  // Several only where nobody confirmed a thaw: then a later session's end is not its end. Commands go on while a
  // filesystem hangs in the kernel. The log does not: it may lie there, and a write to it would stop this process.
  const frozen = new Set<string>();
  const unwritable = new Set<string>();
  const hold = (session: string): void => {
    frozen.add(session);
    unwritable.add(session);
    logger.hold();
  };
  const writable = (session: string): void => {
    unwritable.delete(session);
    if (unwritable.size === 0) logger.release();
  };
  const isFrozen = (): boolean => frozen.size > 0;
  const rest = collectAtRest(() => isFrozen() || keeper.holder !== undefined);
  if (options.recovered !== undefined) {
    const PREDECESSOR = '';
    hold(PREDECESSOR);
    void options.recovered.then(() => {
      frozen.delete(PREDECESSOR);
      writable(PREDECESSOR);
    });
  }
  const sources = defaultSources(compat, options.runtimeDir);
  const coordinator = options.createCoordinator({
    log,
    view: sources.view,
    onHold: hold,
    onReleased(report, byItself) {
      frozen.delete(report.session);
      const { session, requester, outcome, level, frozenWindowMs, error } = report;
      const facts = { session, requester, outcome, level, frozenWindowMs, byItself, error };
      // Nobody may ask for it any more: a manager that sees `thawed` sends no thaw.
      if (outcome === 'expired') log.warn(facts, 'session ended by its lease, before its requester asked');
      else log[outcome === 'ok' ? 'info' : 'warn'](facts, 'session ended');
      rest();
    },
    onWritable: writable,
  });
  const note = owedNote(options.runtimeDir);
  const keeper = new SessionKeeper(coordinator, note);
  const freezing = { coordinator, keeper, plainLeaseMs: options.plainLeaseMs };
  // The settings are the administrator's word on what the host may do. Our own socket is for backup programs, of a group
  // that is not root: it gives what they need, and no way to become root, whatever the host may do.
  const { policy: preset = 'default', alsoAllow = [] } = options;
  const policies: Readonly<Record<Origin, Policy>> = {
    host: { compat, ...listsOf({ preset, alsoAllow, blockRpcs, allowRpcs }), isFrozen },
    guest: { compat, ...listsOf({ preset: 'freeze-only' }), isFrozen },
  };
  const guest = guestHandlers(sources, ({ origin }) => whyDisabled(policies[origin], 'guest-file-write') === undefined);
  const handlers = accounted(
    {
      ...fsfreezeHandlers(freezing),
      ...bridgeHandlers(freezing),
      ...filesystemHandlers(sources),
      ...systemHandlers(),
      ...guest.handlers,
    },
    log,
  );

  const dispatcherFor = (origin: Origin): Dispatcher<ChannelContext> => {
    return new Dispatcher<ChannelContext>({
      ...guestAgent(handlers, policies[origin], options.reportVersion ?? REPORTED_VERSION),
      onError(error, command, { name }) {
        // Every client's first byte is 0xFF, which is no JSON: the protocol's way to begin anew.
        const text = describeError(error);
        const isSyntax = command === undefined && text.startsWith('JSON parse error');
        log[isSyntax ? 'debug' : 'info']({ channel: name, command, error: text }, 'answered an error');
      },
    });
  };

  const tellWriter = ({ name, path, problem }: WriterListing): void => {
    if (problem === undefined) log.info({ name, path }, 'writer found');
    else log.warn({ name, path, problem }, 'writer will not be run');
  };
  const writerWatch = watchWriters({
    folders: options.writerFolders,
    onChange: tellWriter,
    onError(error) {
      log.warn({ error: describeError(error) }, 'writer folders are no longer watched');
    },
    paused: isFrozen,
  });
  for (const writer of await coordinator.writers()) tellWriter(writer);

  const streams = new Set<ByteStream>();
  const serve = (context: ChannelContext): ((stream: ByteStream) => void) => {
    const dispatcher = dispatcherFor(context.origin);
    return (stream) => {
      streams.add(stream);
      log.debug({ channel: context.name }, 'client connected');
      void dispatcher
        .serve(stream, context)
        .catch((error: unknown) => {
          log.info({ channel: context.name, error: describeError(error) }, 'client lost');
        })
        .finally(async () => {
          streams.delete(stream);
          await stream.close();
        });
    };
  };

  const listeners: Listener[] = [];
  const closeChannels = async (): Promise<void> => {
    await writerWatch.close();
    await Promise.all([...streams].map((stream) => stream.close()));
    await Promise.all(listeners.splice(0).map((listener) => listener.close()));
  };
  let lose: (error: Error) => void = () => {};
  const lost = new Promise<Error>((resolve) => {
    lose = resolve;
  });
  try {
    if (options.localSocket !== undefined) {
      const context = { origin: 'guest', name: `local ${options.localSocket}` } as const;
      listeners.push(await openLocalSocket(options.localSocket, serve(context), log));
    }
    const { method, path } = options.channel;
    const onStream = serve({ origin: 'host', name: `${method} ${path}` });
    listeners.push(await openHostChannel({ ...options.channel, onStream, onLost: lose, log }));
    log.info({ method, path, localSocket: options.localSocket, compat }, 'serving');
    tuneForRareCalls();
    await coordinator.warmUp();
    rest();
  } catch (error) {
    await closeChannels();
    await coordinator.close();
    throw error;
  }
  // Nobody will be there to be told by this process.
  const noteOwed = (): void => {
    const owed = keeper.owedTo('host');
    try {
      if (owed !== undefined) note.write(owed);
    } catch (error) {
      log.error({ error: describeError(error) }, 'what the host is owed cannot be noted');
    }
  };
  const closeFiles = async (): Promise<void> => {
    try {
      await withLimit('closing the files of guest-file-open', LAST_CLOSE_LIMIT_MS, guest.close());
    } catch (error) {
      // They are closed with this process.
      log.warn({ error: describeError(error) }, 'files are not known to be closed');
    }
  };
  return {
    lost,
    async stop() {
      try {
        await coordinator.close();
      } finally {
        noteOwed();
        await closeChannels();
        await closeFiles();
        // To write to what is frozen would keep this process for good: then the lines are lost.
        if (unwritable.size === 0) logger.release();
      }
    },
  };
}
