// Steps 1 to 4 of the freeze path (../README.md) as values: Planned, Prepared, Held. Each step takes what the step before
// has made; what it acquires is put into `progress.acquired` as soon as it is there. A step that fails throws, and undoes
// nothing: finish.ts thaws and releases whatever was acquired.
import { defined } from '../../defined.js';
import { monotonicMs } from '../../linux/clock.js';
import type { FreezerConnection } from '../freezer/client.js';
import { FreezerHold } from '../freezer/hold.js';
import type { HoldEnd } from '../freezer/lease-watch.js';
import { checkPlain, checkUnsafe, checkWriters, vetoes } from '../judgement/requirement.js';
import { mountpointList } from '../writers/phase.js';
import { SessionRecord } from '../writers/record.js';
import { WriterSet } from '../writers/writer-set.js';
import { afterChange } from './device-change.js';
import type { FilesystemSet } from './filesystem-set.js';
import type { Progress } from './progress.js';

interface Parts {
  readonly filesystems: FilesystemSet;
  readonly writers: WriterSet;
  readonly hold: FreezerHold;
}
/** What is to be done is known, and the lock of this machine is ours. */
type Planned = Parts & { readonly reached: 'planned' };
/** Writers are prepared, and little is left to sync. */
type Prepared = Parts & { readonly reached: 'prepared' };
/** Applications wait. */
type Held = Parts & { readonly reached: 'held' };

interface AttemptOptions {
  /** By path: writers that do not take part, and why. They count as failed. */
  readonly leftOut: ReadonlyMap<string, string>;
  /** Called when the hold on the freezer ends by itself, now or while it is frozen. May be called more than once. */
  readonly onEnd: (end: HoldEnd) => void;
}

/** Ends in state `frozen`, or throws. */
export async function attempt(progress: Progress, options: AttemptOptions): Promise<void> {
  const planned = await plan(progress, options);
  const prepared = await prepare(progress, planned);
  const held = await holdWriters(progress, prepared);
  await freeze(progress, held);
}

/** Step 1. */
async function plan(progress: Progress, { leftOut, onEnd }: AttemptOptions): Promise<Planned> {
  const { id, request, settings, clock, findings, acquired } = progress;
  const { requester, require } = request;
  const { runtimeDir, writerLimitsMs, plainHookLimitMs, hookFailure } = settings;
  clock.begin('plan');
  progress.checkStop();
  const { filesystems, concerned } = await findings.plan();
  progress.checkStop();
  acquired.filesystems = filesystems;
  const hold = await takeFreezer(progress, filesystems, onEnd);
  acquired.hold = hold;
  checkPlain(require, filesystems.freezeErrors);

  const { mountpoints } = filesystems;
  const head = { session: id, requester, leaseMs: progress.leaseMs, mountpoints };
  const record = SessionRecord.create(runtimeDir, head);
  acquired.record = record;
  const writers = new WriterSet(concerned, {
    ...head,
    leaseMaxMs: progress.leaseMaxMs,
    mountpoints: mountpointList(mountpoints),
    record,
    zeroMs: clock.zeroMs,
    limitsMs: writerLimitsMs,
    ...defined({ plainHookLimitMs }),
    leftOut,
    vetoes: (writer) => vetoes(writer, require, hookFailure),
  });
  findings.writers = writers;
  acquired.writers = writers;
  checkUnsafe(require, hookFailure, findings.unsafeWriters);
  return { reached: 'planned', filesystems, hold, writers };
}

async function takeFreezer(
  progress: Progress,
  filesystems: FilesystemSet,
  onEnd: AttemptOptions['onEnd'],
): Promise<FreezerHold> {
  const { holdBudgetMs, freezeLimitMs, expediteRcu } = progress.settings;
  const request = {
    session: progress.id,
    owner: progress.request.requester,
    leaseMaxMs: progress.leaseMaxMs,
    budgetMs: progress.prepareBudgetMs + holdBudgetMs,
    freezeLimitMs,
    expedite: expediteRcu,
  };
  const open = async (freezer: FreezerConnection): Promise<void> => {
    await filesystems.open(freezer);
  };
  return await afterChange(
    async () => await FreezerHold.take(progress.settings, request, open, onEnd),
    () => !progress.signal.aborted,
  );
}

/** Step 2. */
async function prepare(progress: Progress, planned: Planned): Promise<Prepared> {
  const { writers, filesystems, hold } = planned;
  progress.clock.begin('prepare');
  progress.checkStop();
  const endMs = monotonicMs() + progress.prepareBudgetMs;
  const remainingMs = (): number => endMs - monotonicMs();
  await writers.prepare(remainingMs(), progress.signal);
  progress.checkStop();
  checkWriters(progress.request.require, writers.vetoes);
  await progress.unlessStopped(filesystems.sync(hold.connection, remainingMs, progress.signal));
  await progress.findings.synced();
  return { ...planned, reached: 'prepared' };
}

/** Step 3. */
async function holdWriters(progress: Progress, prepared: Prepared): Promise<Held> {
  const { writers } = prepared;
  const { id, request, settings, clock, findings, signal } = progress;
  progress.to('holding');
  clock.begin('hold');
  progress.checkStop();
  const endMs = monotonicMs() + settings.holdBudgetMs;
  const remainingMs = (): number => Math.max(1, endMs - monotonicMs());
  await writers.freeze(remainingMs, signal);
  progress.checkStop();
  checkWriters(request.require, writers.vetoes);
  await writers.verify(remainingMs(), signal);
  progress.checkStop();
  checkWriters(request.require, writers.vetoes);
  await findings.lookAgain();
  progress.checkStop();
  const without = [...writers.failures, ...findings.unsafeWriters.map(({ what, reason }) => `${what}: ${reason}`)];
  if (without.length > 0) settings.log.warn({ session: id, without }, `goes on without ${without.join('; ')}`);
  // Nothing is frozen in vain: what the freeze can reach at best is known by now.
  findings.checkLevel({ assumeFrozen: true });
  return { ...prepared, reached: 'held' };
}

/** Step 4. The session is Frozen when it returns. */
async function freeze(progress: Progress, { filesystems, hold }: Held): Promise<void> {
  const { id, request, settings, clock, findings, leaseMs } = progress;
  progress.to('freezing');
  progress.holdTold = true;
  settings.onHold(id);
  clock.begin('freeze');
  if (filesystems.openCount === 0) await hold.freezeNothing(leaseMs);
  else filesystems.recordFreeze(await progress.unlessStopped(hold.freeze(leaseMs)));
  progress.checkStop();
  checkPlain(request.require, filesystems.freezeErrors);
  // If all is as it was assumed before, nothing is judged again while everything stands still.
  if (!filesystems.allFrozen) findings.checkLevel();
  progress.reachFrozen({ hold });
  clock.begin('frozen');
}
