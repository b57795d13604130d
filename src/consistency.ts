// Defines the words in which guest and host speak of what a snapshot is worth: the levels, the freeze report (the agent
// sends it over the wire, the host writes it into manifests) and the coordinator, the one interface to the freeze path.
// Implemented in-process by src/freeze/coordinator.ts, and through an agent by src/qga/remote-coordinator.ts.
import * as v from 'valibot';

/** From worthless to best. A report tells the level that was reached and proved, never the one asked for. */
export const consistencyLevels = ['none', 'crash', 'filesystem', 'application'] as const;
export const consistencyLevelSchema = v.picklist(consistencyLevels);
export type ConsistencyLevel = v.InferOutput<typeof consistencyLevelSchema>;

const rank = (level: ConsistencyLevel): number => consistencyLevels.indexOf(level);

/** True if `reached` is `required` or better. */
export function satisfies(reached: ConsistencyLevel, required: ConsistencyLevel): boolean {
  return rank(reached) >= rank(required);
}

/** The lowest of the levels; `ceiling` if there is none. */
export function lowestLevel(levels: readonly ConsistencyLevel[], ceiling: ConsistencyLevel): ConsistencyLevel {
  return levels.reduce((lowest, level) => (satisfies(level, lowest) ? lowest : level), ceiling);
}

/**
 * What `auto` asks for: `application` where some writer speaks for an application, else `filesystem`. Any other level
 * asks for itself. `writerConcerned`: one takes part, or should and may not.
 */
export function levelAskedFor(asked: ConsistencyLevel | 'auto', writerConcerned: boolean): ConsistencyLevel {
  if (asked !== 'auto') return asked;
  return writerConcerned ? 'application' : 'filesystem';
}

/** A number but infinity, which JSON has not: it could be written, as null, but never read again. */
export const finite = v.pipe(v.number(), v.finite());

/** One of `known`. Any other word, of a newer guest, is read as `otherwise`, the one that promises least. */
function told<const Known extends string>(known: readonly Known[], otherwise: Known) {
  return v.pipe(
    v.string(),
    v.transform((word): Known => known.find((each) => each === word) ?? otherwise),
  );
}

/** One of `known`. Any other word, of a newer guest, is read as if nothing was said: of a promise there is no least one. */
function toldIfKnown<const Known extends string>(known: readonly Known[]) {
  return v.optional(
    v.pipe(
      v.string(),
      v.transform((word): Known | undefined => known.find((each) => each === word)),
    ),
  );
}

/** A disk as guest and host both know it: by serial, else by PCI address (`DDDD:BB:SS.F`). */
const diskRefSchema = v.strictObject({
  /** Serial number as the guest sees it (virtio-blk cuts it at 20 bytes). */
  serial: v.optional(v.string()),
  pciAddress: v.optional(v.string()),
  /** Kernel name in the guest, `/dev/vda`: for people, never for matching. */
  dev: v.optional(v.string()),
});
export type DiskRef = v.InferOutput<typeof diskRefSchema>;

/** In milliseconds since the session began (its plan), of guest running time. */
const spanSchema = v.strictObject({ startMs: finite, endMs: finite });
export type Span = v.InferOutput<typeof spanSchema>;

/**
 * How one filesystem was held:
 * frozen      FIFREEZE returned 0, and (once thawed) exactly one FITHAW of ours returned 0 within the lease
 * read-only   mounted read-only everywhere: nothing to hold
 * synced      cannot freeze; synced, and its partition's write counter stayed unchanged until thaw
 * provider    left to the requester's provider, which freezes it by itself: the requester knows what became of it
 * none        not held; `reason` says why
 */
export const holdKinds = ['frozen', 'read-only', 'synced', 'provider', 'none'] as const;

const filesystemReportSchema = v.strictObject({
  mountpoint: v.string(),
  type: v.string(),
  /** Source as in mountinfo, `/dev/vda1`. */
  source: v.string(),
  /** `MAJOR:MINOR` of the superblock, as in mountinfo. */
  device: v.string(),
  disks: v.array(diskRefSchema),
  /** Mounted read-write from a disk of the cut. */
  concerned: v.boolean(),
  held: told(holdKinds, 'none'),
  /** Why it is not held, or how it went wrong. */
  reason: v.optional(v.string()),
  freezeErrno: v.optional(finite),
  thawErrno: v.optional(finite),
  sync: v.optional(spanSchema),
  freeze: v.optional(spanSchema),
  thaw: v.optional(spanSchema),
});
export type FilesystemReport = v.InferOutput<typeof filesystemReportSchema>;

export const writerPhases = ['prepare', 'freeze', 'verify', 'thaw', 'abort', 'post', 'complete'] as const;
export type WriterPhase = (typeof writerPhases)[number];

const phaseReportSchema = v.strictObject({
  phase: told(writerPhases, 'post'),
  ...spanSchema.entries,
  exitCode: v.optional(finite),
  signal: v.optional(v.string()),
  timedOut: v.boolean(),
  /** First line of stderr (else stdout), for people. */
  text: v.optional(v.string()),
});
export type PhaseReport = v.InferOutput<typeof phaseReportSchema>;

export const guarantees = ['held', 'recoverable', 'artefact'] as const;

export const writerKinds = ['plain', 'described', 'resident'] as const;
export const writerVerdicts = ['verified', 'claimed', 'failed', 'not-applicable'] as const;

const writerReportSchema = v.strictObject({
  name: v.string(),
  path: v.string(),
  kind: told(writerKinds, 'plain'),
  required: v.boolean(),
  rank: finite,
  guarantee: toldIfKnown(guarantees),
  /**
   * verified        its own `verify` passed before the first FIFREEZE and (once thawed) again after the last FITHAW
   * claimed         its freeze exited 0, nothing proves it
   * failed          a phase failed; `reason` says which and why
   * not-applicable  it said so (exit 3): nothing of it runs here
   */
  verdict: told(writerVerdicts, 'failed'),
  reason: v.optional(v.string()),
  phases: v.array(phaseReportSchema),
});
export type WriterReport = v.InferOutput<typeof writerReportSchema>;

/** A file that a writer left for whoever keeps the snapshot: a label, a position in a log. */
const artefactSchema = v.strictObject({
  /** The writer's name. */
  writer: v.string(),
  /** One component of a path. */
  name: v.string(),
  /** Its content, if that is UTF-8 without control characters other than tabs and ends of lines; else `base64`. */
  text: v.optional(v.string()),
  base64: v.optional(v.string()),
  /** Bytes of the file, of which only the first are here if it is too long. */
  size: finite,
  truncated: v.optional(v.boolean()),
});
export type Artefact = v.InferOutput<typeof artefactSchema>;

export const sessionSteps = ['plan', 'prepare', 'hold', 'freeze', 'frozen', 'thaw', 'release'] as const;
export type SessionStep = (typeof sessionSteps)[number];

/**
 * ok          held as asked and thawed by the requester (or still frozen)
 * incomplete  the same, but without a writer that should have taken part: it failed, or could not be run safely
 * unreleased  the same, but a writer could not be let go since: its application may still stand still
 * failed      given up before it was frozen, everything thawed and released
 * expired     the lease ended before the requester asked for the thaw
 * broken      the freezer died or a stranger thawed: what was cut meanwhile is worth `crash` at most
 */
export const outcomes = ['ok', 'incomplete', 'unreleased', 'failed', 'expired', 'broken'] as const;

/** The filesystems were held until the requester asked for the thaw, whatever became of single writers. */
export function lasted({ outcome }: Pick<FreezeReport, 'outcome'>): boolean {
  return outcome === 'ok' || outcome === 'incomplete' || outcome === 'unreleased';
}

export const freezeReportSchema = v.strictObject({
  session: v.string(),
  requester: v.string(),
  /** Whatever is not said to be thawed may be frozen. */
  state: told(['frozen', 'thawed'], 'frozen'),
  outcome: told(outcomes, 'broken'),
  /** What an atomic cut taken while this session is held is worth. Final once `state` is `thawed`. */
  level: told(consistencyLevels, 'none'),
  /**
   * Only where filesystems were left to the requester's provider, which is not known here, so that `level` is `crash` at
   * most: the level that everything else allows. What the provider did can only lower it.
   */
  levelWithProvider: v.optional(told(consistencyLevels, 'none')),
  /** One sentence per reason for the level, best first. */
  evidence: v.array(v.string()),
  /** Why it failed, for people. */
  error: v.optional(v.string()),
  filesystems: v.array(filesystemReportSchema),
  writers: v.array(writerReportSchema),
  /**
   * Writers that speak for no application (`guarantee=none`), and have no part in the level. They stand apart so that a
   * host which does not know of them counts them for nothing.
   */
  accompanying: v.optional(v.array(writerReportSchema)),
  /** What writers left in their `artefacts` folders, once all had let go. */
  artefacts: v.optional(v.array(artefactSchema)),
  /**
   * Writers that should have run and could not safely be: the applications they speak for are concerned all the same.
   */
  unsafeWriters: v.optional(v.array(v.strictObject({ what: v.string(), reason: v.string() }))),
  /** Writers that were held and could not be let go when it ended; whether they were since, bridge-status tells. */
  unreleased: v.optional(v.array(v.strictObject({ what: v.string(), reason: v.string() }))),
  /** Mounts that were left out, and hooks that may not be run, with the reason. */
  skipped: v.array(v.strictObject({ what: v.string(), reason: v.string() })),
  steps: v.array(v.strictObject({ step: v.string(), ...spanSchema.entries })),
  leaseMs: finite,
  /** Steps hold to release if a writer took part in them, else the frozen window; 0 while it lasts. */
  pauseWindowMs: finite,
  /** From the first FIFREEZE to the last FITHAW; 0 while it lasts. */
  frozenWindowMs: finite,
});
export type FreezeReport = v.InferOutput<typeof freezeReportSchema>;

/** Asks for a session. */
export interface FreezeRequest {
  /** Who asks, as others are told who ask meanwhile: `host tool`, `guest-fsfreeze-freeze`, ... */
  readonly requester: string;
  /** Chosen by the requester so that a lost reply can be asked for; otherwise made up. */
  readonly session?: string;
  /** Mount points exactly as in mountinfo; without it, all. */
  readonly mountpoints?: readonly string[];
  /** The disks of the cut; without it, all. */
  readonly disks?: readonly DiskRef[];
  /**
   * Mount points whose provider freezes them by itself: held by writers alone. `require` is judged as if the provider
   * held them; what it did, the requester judges (`levelWithProvider` of the report).
   */
  readonly leave?: readonly string[];
  /** How long it may stay frozen. */
  readonly leaseMs: number;
  /**
   * The level below which the attempt ends with a QuiesceError, everything thawed. `auto`: application if a writer is
   * concerned, else filesystem. `plain`: what guest-fsfreeze-freeze means: a required writer that fails and a
   * FIFREEZE error other than EBUSY and EOPNOTSUPP end it, nothing else does.
   */
  readonly require: ConsistencyLevel | 'auto' | 'plain';
}

/** A guest that is held. */
export interface FreezeSession {
  readonly id: string;
  /** As of the last step done. */
  readonly report: FreezeReport;
  /**
   * Deadline = now + leaseMs, within the guest's lease-max. Throws a QuiesceError if the lease has ended. `signal`
   * gives up waiting for the answer where there is a wire in between.
   */
  renew(leaseMs: number, signal?: AbortSignal): Promise<{ readonly remainingMs: number }>;
  /**
   * Thaws, releases the writers and gives the final report, whatever its outcome. May be called again: the same
   * report. Throws ThawUnconfirmedError if a filesystem is not known to be thawed.
   */
  thaw(): Promise<FreezeReport>;
}

/**
 * ok      the requester has what it wanted of the cut, durably: writers may forget what only it made superfluous
 * failed  there is no such cut, or it must not be relied on
 */
export const completeOutcomes = ['ok', 'failed'] as const;
export type CompleteOutcome = (typeof completeOutcomes)[number];

/** What was made of the requester's word about a session that is over. */
export const completionSchema = v.strictObject({
  session: v.string(),
  /** As the requester said the first time. */
  outcome: told(completeOutcomes, 'failed'),
  /** Writers that took part and have the phase `complete`. */
  writers: v.array(
    v.strictObject({
      name: v.string(),
      path: v.string(),
      /** As this writer was told: `failed` too where the session or the writer itself had failed. */
      told: told(completeOutcomes, 'failed'),
      /** `unsupported`: it says that it has no such phase after all. */
      result: told(['done', 'unsupported', 'failed'], 'failed'),
      reason: v.optional(v.string()),
      durationMs: finite,
    }),
  ),
});
export type Completion = v.InferOutput<typeof completionSchema>;

/** A session that is over, kept for what its requester has to say of the cut. */
export const keptListingSchema = v.strictObject({
  session: v.string(),
  requester: v.string(),
  /** Since its end, in milliseconds of guest running time. */
  endedForMs: finite,
  /** `waiting` for the requester's word; `running`, its writers are being told; `completed`, they were. */
  state: told(['waiting', 'running', 'completed'], 'waiting'),
  /** As the requester said, once it is `completed`. */
  outcome: v.optional(told(completeOutcomes, 'failed')),
});
export type KeptListing = v.InferOutput<typeof keptListingSchema>;

export const coordinatorStates = ['idle', 'preparing', 'holding', 'freezing', 'frozen', 'thawing'] as const;
export const coordinatorStatusSchema = v.strictObject({
  /** Only `idle` says that nothing is held. */
  state: told(coordinatorStates, 'frozen'),
  session: v.optional(v.string()),
  requester: v.optional(v.string()),
  /** Milliseconds until the guest thaws itself, in state frozen. */
  remainingMs: v.optional(finite),
});
export type CoordinatorStatus = v.InferOutput<typeof coordinatorStatusSchema>;

/** What became of a writer in the last session that it took part in, as far as the agent remembers. */
const lastRunSchema = v.strictObject({
  session: v.string(),
  verdict: told(writerVerdicts, 'failed'),
  reason: v.optional(v.string()),
  /** All its phases together, in milliseconds. */
  durationMs: finite,
});
export type LastRun = v.InferOutput<typeof lastRunSchema>;

export const writerListingSchema = v.strictObject({
  name: v.string(),
  path: v.string(),
  kind: told(writerKinds, 'plain'),
  required: v.boolean(),
  rank: finite,
  phases: v.array(told(writerPhases, 'post')),
  guarantee: toldIfKnown(guarantees),
  /** It speaks for no application, and has no part in the level. */
  accompanies: v.optional(v.boolean()),
  /** Seconds for which its hold may outlive its process. */
  lingers: v.optional(finite),
  /** Paths that its data lies on; it takes part only if one of them is frozen. Absent if it always does. */
  covers: v.optional(v.array(v.string())),
  /** Absent if it took part in none. Agents of older versions do not tell. */
  last: v.optional(lastRunSchema),
  /** Why it will not be run (permissions, a bad description, switched off, hidden by an earlier folder). */
  problem: v.optional(v.string()),
});
export type WriterListing = v.InferOutput<typeof writerListingSchema>;

/** A session that ended otherwise than its requester knows; a nameless one was of the agent before this one. */
export const untoldSchema = v.strictObject({
  session: v.optional(v.string()),
  requester: v.optional(v.string()),
  /** In the words of the error that guest-fsfreeze-thaw is answered with. */
  reason: v.string(),
});
export type Untold = v.InferOutput<typeof untoldSchema>;

/** A writer that was told to let go and has not: its application may still stand still. */
export const unreleasedWriterSchema = v.strictObject({
  session: v.string(),
  name: v.string(),
  path: v.string(),
  /** Why the last try failed, for people. */
  reason: v.string(),
  /** How often it was told so since its session ended. */
  tries: finite,
  /** Milliseconds until the next try; 0 while one is under way, or waits for a session to end. */
  nextTryMs: finite,
});
export type UnreleasedWriter = v.InferOutput<typeof unreleasedWriterSchema>;

const hungCalls = ['open', 'sync', 'freeze', 'thaw'] as const;
/** A filesystem on which a call has not returned, and which sessions go without meanwhile. */
export const hungFilesystemSchema = v.strictObject({
  mountpoint: v.string(),
  /** After a `freeze` it is thawed as soon as that returns; a `thaw` means that it is frozen until then. */
  call: told(hungCalls, 'thaw'),
  /** Since the call began, of guest running time. */
  forMs: finite,
  /** The session that gave it up. */
  session: v.string(),
});

/** The freeze path, as seen by whoever asks for a session. At most one session holds a guest. */
export interface Coordinator {
  /**
   * Steps 1 to 4 (src/freeze/README.md). `signal` aborts an attempt that is on its way: everything is thawed and
   * released before the promise settles. Throws QuiesceError (facts.report: FreezeReport) when refused or failed, the
   * guest thawed; StateError when somebody else holds the guest (facts: holder).
   */
  freeze(request: FreezeRequest, signal?: AbortSignal): Promise<FreezeSession>;
  status(): Promise<CoordinatorStatus>;
  writers(): Promise<readonly WriterListing[]>;
  /**
   * After thaw(): tells the writers of that session what became of the cut, once; whoever says it again gets the same
   * answer, whatever it says. Waits for `post`, then runs `complete` of those that have it. Gives undefined where there
   * is no such thing: a stock agent, or one of an older version. Throws a QuiesceError if the session is unknown or
   * forgotten, a StateError while a session is under way. `signal` gives up waiting where there is a wire in between.
   */
  complete(session: string, outcome: CompleteOutcome, signal?: AbortSignal): Promise<Completion | undefined>;
}
