// What the freeze path can be told, with its defaults, and what the in-process coordinator offers beyond the shared
// interface (../consistency.ts): the agent's log, its counts and its shutdown hang on these.
import type {
  Coordinator,
  FreezeReport,
  FreezeRequest,
  FreezeSession,
  UnreleasedWriter,
  WriterPhase,
} from '../consistency.js';
import type { HungFilesystem } from './freezer/lines.js';
import type { ServiceManagerPaths } from './freezer/process.js';
import type { LookAtMachine } from '../linux/machine-view.js';
import type { HookFailure } from './judgement/requirement.js';
import type { FreezeRules } from './judgement/rules.js';
import type { WriterFolder } from './writers/folders.js';

/** Where the freeze path reports what is no part of a result. A pino logger is one. Never throws, never blocks. */
export interface FreezeLog {
  debug(facts: object, text: string): void;
  info(facts: object, text: string): void;
  warn(facts: object, text: string): void;
  error(facts: object, text: string): void;
}

export interface CoordinatorOptions {
  /** Directory on tmpfs for sockets, marker and session scratch. Default `/run/fsfreeze-bridge`. */
  readonly runtimeDir?: string;
  /** Default `RUNTIMEDIR/freezer.sock`. */
  readonly freezerSocket?: string;
  /** The freezer program: started when nobody answers the socket, and run as `--thaw-marked` when it died. */
  readonly freezerPath?: string;
  /** For tests: where systemd and the freezer's unit are looked for, and how long that one is waited for. */
  readonly serviceManager?: ServiceManagerPaths;
  readonly unitRetryMs?: number;
  /** Default `RUNTIMEDIR/frozen`. */
  readonly markerPath?: string;
  /** Where writers are looked for, the earlier folder first. Default `defaultWriterFolders`. */
  readonly writerFolders?: readonly WriterFolder[];
  /** Who may own writers besides root. Default: the user of this process. */
  readonly writerOwner?: number;
  /** Time limits of phases a description does not set, in milliseconds. */
  readonly writerLimitsMs?: Partial<Readonly<Record<WriterPhase, number>>>;
  /** Of each phase of a plain hook, which cannot name its own. Without it, `writerLimitsMs`. */
  readonly plainHookLimitMs?: number;
  /** What a plain freeze does when a hook of the administrator's fails. Default `refuse`. */
  readonly hookFailure?: HookFailure;
  /** A plain hook's exit 0 counts as proof. Default false. */
  readonly trustPlainHooks?: boolean;
  /** No lease and no renewal goes beyond this, counted from the first FIFREEZE. Default 600 000. */
  readonly leaseMaxMs?: number;
  /** Step 2. Default 60 000. */
  readonly prepareBudgetMs?: number;
  /** Step 2 of a plain freeze, whose callers wait 5 to 60 s for all of it. Default 5 000. */
  readonly plainPrepareMs?: number;
  /** Step 3. Default 15 000. */
  readonly holdBudgetMs?: number;
  /** RCU grace periods may be expedited for the moment of the freeze. Default true. */
  readonly expediteRcu?: boolean;
  /** How long one FIFREEZE may take before the attempt is given up. Default 8 000: within the shortest usual lease. */
  readonly freezeLimitMs?: number;
  /** What is never touched: reported as skipped, and as not held. */
  readonly rules?: FreezeRules;
  readonly log?: FreezeLog;
  /** Called when state `frozen` is about to begin: from here on until `onWritable` nothing may be written outside tmpfs. */
  readonly onHold?: (session: string) => void;
  /**
   * Called once for every session that called `onHold`, when commands may go on, whoever ended it: the requester, the
   * lease, a dead freezer. Its writers are released and its filesystems known to be thawed, but for those that the kernel
   * keeps in FIFREEZE or FITHAW, which the freezer thaws. Where nobody confirmed a thaw otherwise that may be long after,
   * and after the next session's `onHold`, or never. `byItself` is true unless thaw() or the signal did.
   */
  readonly onReleased?: (report: FreezeReport, byItself: boolean) => void;
  /** Called once after `onReleased`, when nothing of that session hangs any more: long after, or never, where something does. */
  readonly onWritable?: (session: string) => void;
  /** Of whom mounts and disks are asked. Default: one that looks at the roots below. */
  readonly view?: LookAtMachine;
  /** For tests: other roots than /proc/self/mountinfo, /sys, /run/udev and /proc/swaps. */
  readonly mountinfoPath?: string;
  /** Where other mount namespaces are looked for; with another `mountinfoPath` than its own only if it is given. */
  readonly procRoot?: string;
  readonly sysRoot?: string;
  readonly udevRoot?: string;
  readonly swapsPath?: string;
}

export interface LocalSession extends FreezeSession {
  readonly requester: string;
  /** Filesystems that this session froze (guest-fsfreeze-freeze answers this number). */
  readonly frozenCount: number;
  /** Filesystems of this session whose FITHAW returned 0 (guest-fsfreeze-thaw answers this number). */
  readonly thawedCount: number;
  /** Writers may be holding for it: those whose freeze was started and that were not let go. */
  readonly holdsWriters: boolean;
  /** Milliseconds until the guest thaws itself. */
  readonly remainingMs: number;
  /** Settles, never rejects, when everything is thawed and released, whoever ended it. */
  readonly ended: Promise<FreezeReport>;
  /**
   * Settles, never rejects, when it has ended and everything is known to be thawed: with `ended`, unless nobody
   * confirmed the thaw then (state `frozen` of its final report).
   */
  readonly thawed: Promise<FreezeReport>;
  /**
   * As thaw(), by somebody who cannot know when the cut is taken: outcome `broken`, for this reason, unless it ended
   * already. `byItself` is told to onReleased.
   */
  breakOff(error: string, byItself?: boolean): Promise<FreezeReport>;
  /** Tells the freezer that a provider is inside a device-mapper section: expiry waits for `false`, at most `boundMs`. */
  critical(on: boolean, boundMs?: number): Promise<void>;
}

export interface LocalCoordinator extends Coordinator {
  freeze(request: FreezeRequest, signal?: AbortSignal): Promise<LocalSession>;
  /** The session that is frozen (or on its way out of it); not one that is still on its way in. */
  readonly session: LocalSession | undefined;
  /**
   * At the start of the process: takes over the writers that recoverSessions could not release, and looks at mounts and
   * disks, so that the next freeze need not unless they change. Throws as `view` of src/linux/machine-view.ts does.
   */
  warmUp(): Promise<void>;
  /** Writers of sessions that ended, which have not let go: told to again and again. */
  readonly unreleased: readonly UnreleasedWriter[];
  /**
   * What the kernel has not returned a call on, and later sessions work without: named for people. Empty while no freezer
   * answers. Never rejects, and answers as soon as status() does.
   */
  hungFilesystems(): Promise<readonly HungFilesystem[]>;
  /** Of the last session or attempt that ended, with what its `post` phases added. */
  readonly lastReport: FreezeReport | undefined;
  /**
   * Ends whatever is held (as `broken`: its requester may cut later) or on its way: thaws, gives each writer its first
   * try to let go, waits for `post` phases, within 20 s for all of these but the thaw. For SIGTERM. Later freezes are
   * refused. Throws ThawUnconfirmedError as thaw() does, but not for what hangs in the kernel and the freezer keeps at.
   */
  close(): Promise<void>;
}

export const defaultOptions = {
  runtimeDir: '/run/fsfreeze-bridge',
  trustPlainHooks: false,
  leaseMaxMs: 600_000,
  hookFailure: 'refuse',
  prepareBudgetMs: 60_000,
  plainPrepareMs: 5_000,
  holdBudgetMs: 15_000,
  freezeLimitMs: 8_000,
  expediteRcu: true,
  mountinfoPath: '/proc/self/mountinfo',
  sysRoot: '/sys',
  udevRoot: '/run/udev',
  swapsPath: '/proc/swaps',
} as const;

/** Used where no log is given. */
export const silentLog: FreezeLog = {
  debug() {},
  info() {},
  warn() {},
  error() {},
};
