// Holds the guest, sends the cut and lets the guest go: all that happens between the freeze request and the thaw reply.
// The host does nothing else meanwhile; questions about a lost answer are asked after the thaw. How the guest is held
// is guest/quiesce.ts, what is sent cut.ts.
import { CutError, QuiesceError, StateError, ThawUnconfirmedError, describeError } from '../../errors.js';
import type { DiskRef, FreezeReport } from '../../consistency.js';
import type { Reverter } from '../../reverter.js';
import { diskName } from '../vm/disk-choice.js';
import type { CreatePlan } from './create-plan.js';
import { sendCut, type Cut } from './cut.js';
import type { AgentLimits, GuestAgent } from '../guest/guest-agent.js';
import type { CutHost } from '../vm/hypervisor.js';
import { tornFilesystems, whyTorn, type CutDisk } from '../guest/level.js';
import type { Marks } from '../sets/point-in-time.js';
import { quiesce, type Hold } from '../guest/quiesce.js';
import { whyTooLarge } from '../guest/report-size.js';
import { clip } from '../guest/clip.js';
import { checkReached, crashWillDo, type Requirement } from '../guest/requirement.js';

export interface HeldCutOptions {
  readonly agent: GuestAgent | undefined;
  readonly whyNoAgent: string | undefined;
  readonly refs: readonly (DiskRef | undefined)[];
  readonly cutDisks: readonly CutDisk[];
  /** The socket of the agent's channel, as QEMU has it. */
  readonly agentSocket: string | undefined;
  readonly requirement: Requirement;
  /** How long the agent's sessions try to thaw. */
  readonly agentLimits?: Pick<AgentLimits, 'thawMs'>;
  /** The id of the freeze session, in the journal already. */
  readonly session: string;
  readonly leaseMs: number;
  readonly cutTimeoutMs: number;
  readonly signal: AbortSignal;
}

/** A cut that was taken, and the hold it was taken under. */
export interface HeldCut {
  /** The guest's final report; undefined if it was not held, or if its end is not known. */
  readonly report: FreezeReport | undefined;
  /** Why the report must not be taken as evidence, or why there is none. */
  readonly doubt: string | undefined;
  /** The disks are cut, but nobody confirmed the thaw. */
  readonly thawError: ThawUnconfirmedError | undefined;
}

/** The disks of the cut as the guest knows them; nobody has counted their writes yet. */
export function cutDisksOf({ chosen, all, refs }: CreatePlan): CutDisk[] {
  return chosen.map((disk, index) => ({
    name: diskName(disk),
    ref: refs[index],
    still: undefined,
    pciAddress: disk.pciAddress,
    sharers: all.filter(({ pciAddress }) => pciAddress === disk.pciAddress).length,
  }));
}

/** How long QEMU is waited for, after the thaw, when the answer to its transaction was lost. */
const LATE_ANSWER_MS = 60_000;

/**
 * Cuts. Throws a QuiesceError (not held as asked, nothing cut), a CutError (nothing cut; outcome 'unknown' if nobody
 * knows) or a ThawUnconfirmedError (its fact `cut` says which). In the first two cases the guest is thawed.
 */
export async function holdAndCut(
  host: Pick<CutHost, 'watchAgentPort'>,
  cut: Cut,
  reverter: Reverter,
  marks: Marks,
  options: HeldCutOptions,
): Promise<HeldCut> {
  const { hold, why } = await holdGuest(host, reverter, marks, options);
  const cutFailure = await failureOf(async () => {
    options.signal.throwIfAborted();
    if (hold !== undefined) checkHold(hold, options);
    await sendCut(cut, options.cutTimeoutMs, marks);
  });
  const thaw = await thawOf(hold);
  const { report, doubt } = evidenceOf(thaw, why);
  const became = cutFailure === undefined ? 'cut' : await whatBecame(cut, cutFailure);
  if (cutFailure !== undefined && became !== 'cut') throw errorOf(cutFailure, became, thaw.error);
  return { report, doubt: cutFailure === undefined ? doubt : CUT_AT_UNKNOWN_TIME, thawError: thaw.error };
}

const CUT_AT_UNKNOWN_TIME = 'when the disks were cut is not known: the answer to the transaction was lost';

interface Thaw {
  readonly report: FreezeReport | undefined;
  readonly error: ThawUnconfirmedError | undefined;
}

/** Never throws: the cut may have been taken. */
async function thawOf(hold: Hold | undefined): Promise<Thaw> {
  try {
    return { report: await hold?.thaw(), error: undefined };
  } catch (error) {
    return { report: undefined, error: asUnconfirmed(error) };
  }
}

/** The report if it may be taken as evidence, and why it may not, or why there is none. */
function evidenceOf({ report, error }: Thaw, whyNotHeld: string | undefined): Pick<HeldCut, 'report' | 'doubt'> {
  const tooLarge = report === undefined ? undefined : whyTooLarge(report);
  if (tooLarge !== undefined) return { report: undefined, doubt: tooLarge };
  return { report, doubt: error === undefined ? whyNotHeld : 'nobody confirmed the thaw' };
}

/** The error of a cut that was not taken, or of which that is not known. An unconfirmed thaw is the worst of them. */
function errorOf(cutFailure: Error, became: 'not cut' | 'unknown', thawError: ThawUnconfirmedError | undefined): Error {
  if (thawError !== undefined) {
    const message = `${thawError.message} (and ${describeError(cutFailure)})`;
    const facts = { cut: became };
    return new ThawUnconfirmedError(thawError.code, message, { cause: thawError.cause, outcome: 'unknown', facts });
  }
  if (became === 'unknown') return cutUnknown(cutFailure);
  if (!(cutFailure instanceof CutError)) return cutFailure;
  return new CutError(cutFailure.code, cutFailure.message, { cause: cutFailure.cause });
}

function cutUnknown(failure: Error): CutError {
  const message = `${failure.message}; the guest is thawed, but whether its disks were cut is not known: run "fsfreeze-bridge recover"`;
  return new CutError('E_CUT', message, { cause: failure.cause, outcome: 'unknown' });
}

/** True if nobody knows whether the VM writes to the overlays: nothing may be undone. */
export function isCutUnknown(error: unknown): boolean {
  if (error instanceof ThawUnconfirmedError) return error.facts['cut'] === 'unknown';
  return error instanceof CutError && error.outcome === 'unknown';
}

// The coordinator refuses by itself; this check is for one that answers late, or less than it was asked for.
function checkHold({ report, lost }: Hold, { requirement, cutDisks: disks }: HeldCutOptions): void {
  if (lost !== undefined && !crashWillDo(requirement)) {
    throw new QuiesceError('E_HOLD_LOST', `the guest let go before the cut: ${lost}; nothing was cut`);
  }
  const tooLarge = whyTooLarge(report);
  if (tooLarge !== undefined) {
    checkReached(requirement, 'crash', undefined, tooLarge);
    return;
  }
  const torn = tornFilesystems(report, disks).map((filesystem) => whyTorn(filesystem, disks));
  if (torn.length > 0) checkReached(requirement, 'none', report, torn.join('; '));
  checkReached(requirement, report.level, report, report.error ?? report.evidence.join('; '));
}

function asUnconfirmed(error: unknown): ThawUnconfirmedError {
  if (error instanceof ThawUnconfirmedError) return error;
  const cause = asError(error);
  const message = `the thaw failed: ${cause.message}`;
  return new ThawUnconfirmedError('E_THAW_UNCONFIRMED', message, { cause, outcome: 'unknown' });
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

async function failureOf(work: () => Promise<void>): Promise<Error | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return asError(error);
  }
}

interface Attempt {
  readonly hold: Hold | undefined;
  /** Why the guest is not held. */
  readonly why: string | undefined;
}

async function holdGuest(
  host: Pick<CutHost, 'watchAgentPort'>,
  reverter: Reverter,
  marks: Marks,
  options: HeldCutOptions,
): Promise<Attempt> {
  const { agent, refs, requirement, session, leaseMs, signal } = options;
  if (agent === undefined) return { hold: undefined, why: options.whyNoAgent ?? 'there is no agent' };
  const disks = refs.filter((ref) => ref !== undefined);
  const request = {
    requester: `fsfreeze-bridge, process ${process.pid}`,
    session,
    leaseMs,
    require: crashWillDo(requirement) ? ('crash' as const) : requirement.asked,
    // If the guest cannot tell one of the disks from another, it is asked to hold all it has.
    ...(disks.length === refs.length ? { disks } : {}),
  };
  using port = options.agentSocket === undefined ? undefined : host.watchAgentPort(options.agentSocket);
  const either = port === undefined ? signal : AbortSignal.any([signal, port.signal]);
  try {
    const hold = await quiesce(agent, request, reverter, marks, either, options.agentLimits?.thawMs);
    return { hold, why: undefined };
  } catch (error) {
    // This comes before the signal: a guest that may be frozen is worse news than an interruption.
    if (error instanceof ThawUnconfirmedError) throw error;
    signal.throwIfAborted();
    const refused = error instanceof QuiesceError || error instanceof StateError;
    if (refused && crashWillDo(requirement)) return { hold: undefined, why: clip(describeError(error)) };
    if (error instanceof StateError) {
      throw new QuiesceError('E_BUSY', `the guest cannot be held: ${error.message}; nothing was cut`, { cause: error });
    }
    throw error;
  }
}

async function whatBecame(cut: Cut, failure: Error): Promise<'cut' | 'not cut' | 'unknown'> {
  if (!isCutUnknown(failure)) return 'not cut';
  try {
    return await cut.became(LATE_ANSWER_MS);
  } catch {
    // The caller's error says what is not known.
    return 'unknown';
  }
}
