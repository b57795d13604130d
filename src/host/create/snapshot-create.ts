// `snapshot create`: holds the guest, cuts its disks in one transaction, lets it go, and writes down what the set is
// worth. The order is the safety: everything slow before the hold (prepare-set.ts), one monitor command while it lasts
// (held-cut.ts), the manifest's intent durable before the cut; and whatever fails, the guest is thawed before anything
// else is undone (set-in-making.ts).
import { satisfies } from '../../consistency.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import { firmwareOf, type LeftOut } from '../vm/disk-choice.js';
import { describeIdentity } from '../vm/identity.js';
import { checkName } from '../vm/names.js';
import type { Manifest } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import type { Marks } from '../sets/point-in-time.js';
import { refuseHalfRestored } from '../sets/restore-journal.js';
import { refuseHalfCommitted } from '../sets/set-state.js';
import { openAndLockVm } from '../sets/vm-lock.js';
import { overlayRefusal, planCreate, type CreatePlan } from './create-plan.js';
import { cutDisksOf, holdAndCut } from './held-cut.js';
import { compared, cutDisks, manifestOfCut, worthOf } from './manifest-cut.js';
import { MonitorLog } from './monitor-log.js';
import { overlayCut } from './overlay-cut.js';
import { prepareSet, type PrepareOptions } from './prepare-set.js';
import { record, unconfirmed, withState } from './record-set.js';
import { SetInMaking } from './set-in-making.js';
import { StepTimer } from './step-timer.js';
import { tellGuest } from './tell-guest.js';
import { readWriteCounts, stillDisks } from './write-counts.js';

export interface CreateOptions extends PrepareOptions {
  readonly stateDir: string;
  /** How long to wait while another process works on the VM. */
  readonly lockWaitMs: number;
  readonly monitorTimeoutMs: number;
  readonly cutTimeoutMs: number;
}

export interface CreateResult {
  readonly manifest: Manifest;
  /** The level reached is the one asked for, or better. */
  readonly satisfied: boolean;
  /** Storage that the guest may write to, that could not be cut, and that is not in the set. */
  readonly missing: readonly LeftOut[];
  /** What the overlays lack, though the set is sound, in sentences. */
  readonly notes: readonly string[];
}

/**
 * Makes a snapshot set. Throws UsageError, UnreachableError, QuiesceError (nothing cut), CutError or
 * ThawUnconfirmedError; except for the last the guest is thawed. What was done is undone, unless the error says that it
 * could not be, or that nobody knows whether the disks were cut. A ThawUnconfirmedError with the fact `set` leaves
 * the set, labelled `crash`.
 */
export async function createSnapshot(options: CreateOptions): Promise<CreateResult> {
  checkName('snapshot set', options.set);
  const timer = new StepTimer();
  const monitorLog = new MonitorLog();
  const request = { ...options, operation: 'create', waitMs: options.lockWaitMs } as const;
  // Locked until the end: the plan, too, is made of what nobody else may change meanwhile.
  await using open = await openAndLockVm(request, {
    timeoutMs: options.monitorTimeoutMs,
    log: monitorLog.note,
  });
  const { hypervisor, store, identity } = open;
  await store.checkFree(options.set);
  await refuseHalfRestored(store.folder);
  await refuseHalfCommitted(hypervisor, (await store.readAll()).manifests);
  if (identity.kind === 'address') options.onProgress(`the VM has ${describeIdentity(identity)}`);
  const plan = await planCreate(hypervisor, options, overlayRefusal(hypervisor));
  timer.end('inspect');
  const making = new SetInMaking(store, options.signal);
  try {
    return await create({ options, store, hypervisor, plan, timer, monitorLog: monitorLog.commands }, making);
  } catch (error) {
    throw await making.undo(error);
  } finally {
    await making.end();
    await plan.agent?.[Symbol.asyncDispose]();
  }
}

/** The values that the steps are given; only the timer and the log go on. */
interface CreateRun {
  readonly options: CreateOptions;
  readonly store: ManifestStore;
  readonly hypervisor: Hypervisor;
  readonly plan: CreatePlan;
  readonly timer: StepTimer;
  readonly monitorLog: Manifest['monitorLog'];
}

async function create(run: CreateRun, making: SetInMaking): Promise<CreateResult> {
  const { options, store, hypervisor, plan, timer, monitorLog } = run;
  const prepared = await prepareSet(hypervisor, store, plan, making, options);
  const { draft, overlays, session, writesBefore } = prepared;
  timer.end('overlays');

  const marks: Marks = {};
  const guestDisks = cutDisksOf(plan);
  const cut = overlayCut(hypervisor, overlays);
  const { agent } = options.vm;
  const held = await holdAndCut(hypervisor, cut, making.reverter, marks, {
    ...options,
    ...plan,
    cutDisks: guestDisks,
    session,
    agentSocket: agent?.kind === 'socket' ? agent.path : undefined,
  });
  making.keep();

  // The counts first: the guest writes again.
  const still = stillDisks(plan.chosen, writesBefore, await orUndefined(readWriteCounts(hypervisor)));
  const findings = await cut.verify();
  const counted = guestDisks.map((disk, index) => ({ ...disk, still: still[index] }));
  const worth = compared(
    worthOf(held, counted),
    findings,
    guestDisks.map(({ name }) => name),
  );
  timer.marks(marks);
  const disks = await cutDisks(draft, overlays, findings, worth);
  const manifest = manifestOfCut(draft, { held, worth, disks, marks, monitorLog, steps: timer.steps, ...plan });
  const unrecorded = await record(store, manifest);
  timer.end('record');
  if (held.thawError !== undefined) throw unconfirmed(held.thawError, manifest, unrecorded);
  if (unrecorded !== undefined) throw unrecorded;
  const whole = await withState(store, manifest, [...firmwareOf(plan.all), ...prepared.folders]);
  const satisfied = satisfies(whole.level, whole.required);
  const { signal } = options;
  const told = await tellGuest(store, whole, { coordinator: plan.agent?.coordinator, held, satisfied, signal });
  return { manifest: told, satisfied, missing: plan.missing, notes: prepared.notes };
}

// After the cut a monitor that fails must cost evidence at most, not the set.
async function orUndefined<T>(work: Promise<T>): Promise<T | undefined> {
  return await work.catch(() => undefined);
}
