// Puts the guest daemon together: channels on one side, the coordinator on the other, handlers between. It owns the
// order of start and stop: whatever ends the agent, what is frozen is thawed first. The way of a request: README.md.
import type { FreezeReport } from '../consistency.js';
import { withLimit } from '../deadline.js';
import { describeError } from '../errors.js';
import type { CoordinatorOptions, LocalCoordinator } from '../freeze/options.js';
import type { WriterFolder } from '../freeze/writers/folders.js';
import type { HeldLogger, Logger } from '../log.js';
import { withAuditLog } from './audit-log.js';
import { joinHandlers, type JoinedHandlers } from './handlers/join.js';
import { defaultSources } from './kernel-files.js';
import { lateThawNote, leaveNote } from './late-thaw-note.js';
import { logHold } from './log-hold.js';
import { makePolicies, mayWriteFiles, type PolicyOptions } from './policies.js';
import { Serving, type ChannelOptions } from './serving.js';
import { SessionKeeper } from './session-keeper.js';
import { tellWriters } from './tell-writers.js';
import { collectAtRest, tuneForRareCalls } from './v8-tuning.js';
import { REPORTED_VERSION } from './version.js';

/** For files that are still open when the agent ends. */
const LAST_CLOSE_LIMIT_MS = 1000;

export interface AgentOptions extends PolicyOptions {
  readonly channel: ChannelOptions;
  /** The version that guest-info answers; without it, ours. */
  readonly reportVersion?: string;
  /** For programs in the guest, with root's own beside it. Without it, neither. */
  readonly localSocket?: string;
  readonly plainLeaseMs: number;
  /** On tmpfs: for the note of what the host is owed. */
  readonly runtimeDir: string;
  /** Only if a dead predecessor's filesystems may still be frozen: settles when they are not, and never rejects. */
  readonly recovered?: Promise<void>;
  /** Watched, so that the log tells of a bad hook when it is dropped in. */
  readonly writerFolders: readonly WriterFolder[];
  readonly logger: HeldLogger;
  /** Makes the coordinator, which is to use this log and this view, and to call these. */
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
  const { logger, compat, runtimeDir, plainLeaseMs } = options;
  const { log } = logger;
  const hold = logHold(logger, options.recovered);
  const rest = collectAtRest(() => hold.isFrozen() || keeper.holder !== undefined);
  const sources = defaultSources(compat, runtimeDir);
  const coordinator = options.createCoordinator({
    log,
    view: sources.view,
    onHold: hold.begin,
    onReleased(report, byItself) {
      hold.ended(report.session);
      tellEnd(report, byItself, log);
      rest();
    },
    onWritable: hold.writable,
  });
  const note = lateThawNote(runtimeDir);
  const keeper = new SessionKeeper(coordinator, note);
  const policies = makePolicies(options, hold.isFrozen);
  const joined = joinHandlers(sources, { coordinator, keeper, plainLeaseMs }, mayWriteFiles(policies));
  const version = options.reportVersion ?? REPORTED_VERSION;
  const handlers = withAuditLog(joined.handlers, log);
  const serving = new Serving({ handlers, policies, version, heldFor: (client) => keeper.heldFor(client), log });
  const writers = await tellWriters({ coordinator, folders: options.writerFolders, isFrozen: hold.isFrozen, log });
  const closeChannels = async (): Promise<void> => {
    await writers.close();
    await serving.close();
  };
  try {
    await serving.open(options.channel, options.localSocket);
    tuneForRareCalls();
    await coordinator.warmUp();
    rest();
  } catch (error) {
    await closeChannels();
    await coordinator.close();
    throw error;
  }
  return {
    lost: serving.lost,
    async stop() {
      try {
        await coordinator.close();
      } finally {
        const owed = keeper.owedTo('host');
        // This process will not be there when the host asks.
        if (owed !== undefined) leaveNote(note, owed, log);
        await closeChannels();
        await closeFiles(joined, log);
        hold.close();
      }
    },
  };
}

function tellEnd(
  { session, requester, outcome, level, frozenWindowMs, error }: FreezeReport,
  byItself: boolean,
  log: Logger,
): void {
  const facts = { session, requester, outcome, level, frozenWindowMs, byItself, error };
  // Nobody may ask for it any more: a manager that sees `thawed` sends no thaw.
  if (outcome === 'expired') log.warn(facts, 'session ended by its lease, before its requester asked');
  else log[outcome === 'ok' ? 'info' : 'warn'](facts, 'session ended');
}

async function closeFiles(files: Pick<JoinedHandlers, 'close'>, log: Logger): Promise<void> {
  try {
    await withLimit('closing the files of guest-file-open', LAST_CLOSE_LIMIT_MS, files.close());
  } catch (error) {
    // They are closed with this process.
    log.warn({ error: describeError(error) }, 'files are not known to be closed');
  }
}
