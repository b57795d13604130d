// What the freeze path can be told, with its defaults, and what the in-process coordinator offers beyond the shared
// interface (../consistency.ts), for the agent's log, its counts and its shutdown. What all of it means: README.md.
import type {
  CompleteOutcome,
  Completion,
  Coordinator,
  FreezeReport,
  FreezeRequest,
  FreezeSession,
  KeptListing,
  UnreleasedWriter,
  WriterPhase,
} from '../consistency.js';
import type { HungFilesystem } from './freezer/lines.js';
import type { ServiceManagerPaths } from './freezer/process.js';
import type { LookAtMachine } from '../linux/machine-view.js';
import type { ProcessId } from '../linux/process-stat.js';
import type { HookFailure } from './judgement/requirement.js';
import type { FreezeRules } from './judgement/rules.js';
import type { WriterFolder } from './writers/folders.js';

/** Where the freeze path logs what is no part of a result. A pino logger is one. Never throws, never blocks. */
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
  /** For tests: where systemd and the freezer's unit are looked for, and how long the unit's freezer is waited for. */
  readonly serviceManager?: ServiceManagerPaths;
  readonly unitRetryMs?: number;
  /** Default `RUNTIMEDIR/frozen`. */
  readonly markerPath?: string;
  /** Where writers are looked for, the earlier folder first. Default `defaultWriterFolders`. */
  readonly writerFolders?: readonly WriterFolder[];
  /** Who may own writers besides root. Default: the user of this process. */
  readonly writerOwner?: number;
  /** Time limits of phases, where a writer's description sets none. */
  readonly writerLimitsMs?: Partial<Readonly<Record<WriterPhase, number>>>;
  /** Time limit of each phase of a plain hook, which cannot name its own. Without it, `writerLimitsMs`. */
  readonly plainHookLimitMs?: number;
  /** What a plain freeze does when a hook of the administrator's fails. Default `refuse`. */
  readonly hookFailure?: HookFailure;
  /** A plain hook's exit 0 counts as proof. Default false. */
  readonly trustPlainHooks?: boolean;
  /** No lease and no renewal goes beyond this, counted from the first FIFREEZE. Default 600 000. */
  readonly leaseMaxMs?: number;
  /** How long step 2 may take. Default 60 000. */
  readonly prepareBudgetMs?: number;
  /** How long step 2 of a plain freeze may take: its callers wait 5 to 60 s for the whole freeze. Default 5 000. */
  readonly plainPrepareMs?: number;
  /** How long step 3 may take. Default 15 000. */
  readonly holdBudgetMs?: number;
  /** RCU grace periods may be expedited for the moment of the freeze. Default true. */
  readonly expediteRcu?: boolean;
  /** How long one FIFREEZE may take before the attempt is given up. Default 8 000: within the shortest usual lease. */
  readonly freezeLimitMs?: number;
  /** Filesystems that are never touched: they are reported as skipped, and as not held. */
  readonly rules?: FreezeRules;
  readonly log?: FreezeLog;
  /**
   * Called just before the first FIFREEZE (state `freezing`), or before the hold begins where nothing freezes. Until `onWritable` nothing may be written outside tmpfs.
   */
  readonly onHold?: (session: string) => void;
  /**
   * Called once for every session that called `onHold`, when commands may go on, whoever ended it: the requester, the
   * lease, a dead freezer. Its writers are released by then. Its filesystems are known to be thawed, but for those that
   * the kernel keeps in FIFREEZE or FITHAW, which the freezer thaws. A thaw that nobody confirmed for another reason
   * may make it come long after, even after the next session's `onHold`, or never. `byItself` is true unless thaw() or
   * the signal ended it.
   */
  readonly onReleased?: (report: FreezeReport, byItself: boolean) => void;
  /**
   * Called once, after `onReleased`, when nothing of that session hangs any more. Where something does: long after, or
   * never.
   */
  readonly onWritable?: (session: string) => void;
  /** Who is asked for mounts and disks. Default: a viewer that looks at the roots below. */
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
   * Settles, never rejects, when the session has ended and everything is known to be thawed: together with `ended`,
   * unless nobody had confirmed the thaw by then (its final report is in state `frozen`).
   */
  readonly thawed: Promise<FreezeReport>;
  /**
   * Ends the session as thaw() does, for somebody who does not know whether the cut was taken: the outcome is `broken`,
   * for this reason, unless the session had ended already. Waits for the end of a critical section, within its bound.
   * `byItself` is passed to onReleased.
   */
  breakOff(error: string, byItself?: boolean): Promise<FreezeReport>;
  /**
   * Tells that a provider is inside a device-mapper section: whatever ends the session but thaw() waits for `false`, at
   * most `boundMs` (default 30 000), or until `worker` has ended and no device is suspended. Changes nothing where nothing
   * is frozen. Throws a QuiesceError if the session is not frozen any more, and for `true` while an end waits already.
   */
  critical(on: boolean, boundMs?: number, worker?: ProcessId): Promise<void>;
  /**
   * For whoever thaws in the requester's place: lets no other critical section begin, and settles, never rejects, when
   * the one under way is over.
   */
  closeSections(): Promise<void>;
}

export interface LocalCoordinator extends Coordinator {
  freeze(request: FreezeRequest, signal?: AbortSignal): Promise<LocalSession>;
  /** The session that is frozen, or on its way out of it. One that is still on its way in is not told of. */
  readonly session: LocalSession | undefined;
  /**
   * At the start of the process: takes over the writers that recoverSessions could not release, and looks at mounts and
   * disks, so that the next freeze need not unless they change. Throws as `view` of src/linux/machine-view.ts does.
   */
  warmUp(): Promise<void>;
  complete(session: string, outcome: CompleteOutcome): Promise<Completion>;
  /** Sessions that are over and may be completed, or were: the latest last, 16 at most. */
  readonly kept: readonly KeptListing[];
  /** Writers of ended sessions that have not let go. They are told to again and again. */
  readonly unreleased: readonly UnreleasedWriter[];
  /**
   * Filesystems on which the kernel has not returned a call, for people. Later sessions work without them. Empty while
   * no freezer answers. Never rejects, and answers as soon as status() does.
   */
  hungFilesystems(): Promise<readonly HungFilesystem[]>;
  /** The report of the last session or attempt that ended, with what its `post` phases added. */
  readonly lastReport: FreezeReport | undefined;
  /**
   * For SIGTERM. Ends the session that is held (as `broken`: its requester may cut later) or on its way: thaws, lets
   * each writer try once to let go, waits for `post` phases. All of these but the thaw take 20 s together at most.
   * Later freezes are refused. Throws a ThawUnconfirmedError as thaw() does, but not for what hangs in the kernel: the
   * freezer keeps at that.
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
