// The main job: hold the guest, cut its disks in one transaction, let it go, and write down what the set is worth.
// The order is the safety: everything slow before the hold, one monitor command while it lasts, the manifest's intent
// durable before the cut, and whatever happens the guest is thawed before anything else is undone.
import { randomBytes, randomUUID } from 'node:crypto';
import { defined } from '../../defined.js';
import { satisfies } from '../../consistency.js';
import { ThawUnconfirmedError } from '../../errors.js';
import { Reverter } from '../../reverter.js';
import { planCreate, type CreatePlan, type PlanOptions } from './create-plan.js';
import { undoCreate } from './create-undo.js';
import { checkName } from '../vm/names.js';
import { diskName, firmwareOf, type LeftOut } from '../vm/disk-choice.js';
import { roundMs } from '../../linux/clock.js';
import { holdAndCut, type HeldCut } from './held-cut.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import { Journal } from '../sets/journal.js';
import { crashOnly, levelsOf, type CutDisk, type SetWorth } from '../guest/level.js';
import type { Manifest } from '../sets/manifest.js';
import type { Marks } from '../sets/point-in-time.js';
import { draftManifest } from './manifest-draft.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { saveTexts } from '../sets/saved-files.js';
import { describeIdentity } from '../vm/identity.js';
import { openAndLockVm } from '../sets/vm-lock.js';
import { checkUnchanged, overlayCut } from './overlay-cut.js';
import { checkOverlays, checkRoom, makeOverlays, planOverlays, readRoom } from './overlays.js';
import { compared, cutDisks } from './manifest-cut.js';
import { record, unconfirmed, withState } from './record-set.js';
import { refuseHalfCommitted } from '../sets/set-state.js';
import { sentence } from '../guest/report-size.js';
import { requiredLevel } from '../guest/requirement.js';
import { StepTimer } from './step-timer.js';
import { readWriteCounts, stillDisks } from './write-counts.js';

export interface CreateOptions extends PlanOptions {
  readonly set: string;
  readonly stateDir: string;
  /** How long to wait while another process works on the VM. */
  readonly lockWaitMs: number;
  readonly minFreeBytes: number;
  /** How long the guest may stay frozen without hearing from us. */
  readonly leaseMs: number;
  readonly monitorTimeoutMs: number;
  readonly cutTimeoutMs: number;
  readonly signal: AbortSignal;
  /** One line for people. Must not throw. */
  readonly onProgress: (text: string) => void;
}

export interface CreateResult {
  readonly manifest: Manifest;
  /** The level reached is the one asked for, or better. */
  readonly satisfied: boolean;
  /** What the guest may write to, could not be cut, and is not in the set. */
  readonly missing: readonly LeftOut[];
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
  const monitorLog: Manifest['monitorLog'] = [];
  const request = { ...options, operation: 'create', waitMs: options.lockWaitMs } as const;
  // Until the end: the plan, too, is made of what nobody else may change meanwhile.
  await using open = await openAndLockVm(request, {
    timeoutMs: options.monitorTimeoutMs,
    log: ({ direction, command, monotonicNs }) => {
      if (direction === 'sent') monitorLog.push({ command, sentMs: Number(monotonicNs / 1000n) / 1000 });
    },
  });
  const { hypervisor: monitor, store, identity } = open;
  await store.checkFree(options.set);
  await refuseHalfCommitted(monitor, (await store.readAll()).manifests);
  if (identity.kind === 'address') options.onProgress(`the VM has ${describeIdentity(identity)}`);
  const plan = await planCreate(monitor, options);
  timer.end('inspect');
  const run: Run = {
    options,
    store,
    monitor,
    plan,
    timer,
    monitorLog,
    reverter: new Reverter(),
    draft: undefined,
    journal: undefined,
    isCut: false,
  };
  let keepHold = false;
  try {
    return await create(run);
  } catch (error) {
    // Nothing of a cut that was taken may be undone, nor may it be called none. The agent is still open: the undo may
    // have to thaw.
    const told = run.isCut ? error : await undoCreate(run.reverter, store, run.draft, options.signal, error);
    keepHold = told instanceof ThawUnconfirmedError;
    throw told;
  } finally {
    await run.journal?.end({ keepHold });
    await plan.agent?.[Symbol.asyncDispose]();
  }
}

interface Run {
  readonly options: CreateOptions;
  readonly store: ManifestStore;
  readonly monitor: Hypervisor;
  readonly plan: CreatePlan;
  readonly timer: StepTimer;
  readonly monitorLog: Manifest['monitorLog'];
  readonly reverter: Reverter;
  /** The set's manifest while the set may be forgotten again. */
  draft: Manifest | undefined;
  /** There once the set's name is taken. */
  journal: Journal | undefined;
  isCut: boolean;
}

async function create(run: Run): Promise<CreateResult> {
  const { options, store, monitor, plan, timer, reverter } = run;
  const { set, signal } = options;
  const id = randomBytes(4).toString('hex');
  const overlays = await planOverlays(plan.chosen, set, id, options.vm.overlayDir);
  checkRoom(await readRoom(overlays, options.minFreeBytes));
  const begun = await draftManifest(monitor, plan, overlays, id, options);
  run.journal = await Journal.claim(store, set);
  run.draft = begun;
  await store.write(begun);
  const description = await monitor.describe();
  const saved = await saveTexts(store, set, description.texts);
  const draft = { ...begun, ...(saved.length === 0 ? {} : { saved }) };
  run.draft = draft;
  await makeOverlays(overlays, reverter, signal, (done) => {
    options.onProgress(`making overlay ${done + 1} of ${overlays.length}`);
  });
  await monitor.prepare(overlays, reverter, signal);
  await checkOverlays(overlays);
  // Durable before the guest is held: a tool killed after its transaction leaves a set that says so, and a journal that
  // knows whom to thaw.
  await store.write({ ...draft, state: 'cutting' });
  const { vm, leaseMs } = options;
  const session = randomUUID();
  if (plan.agent !== undefined && vm.qga !== undefined) {
    await run.journal.holds({ session, qga: vm.qga, leaseMs, since: new Date().toISOString() });
  }
  const before = await readWriteCounts(monitor);
  await checkUnchanged(monitor, overlays);
  timer.end('overlays');

  const marks: Marks = {};
  const guestDisks = cutDisksOf(plan);
  const cut = overlayCut(monitor, overlays);
  const held = await holdAndCut(monitor, cut, reverter, marks, {
    ...options,
    ...plan,
    cutDisks: guestDisks,
    session,
    agentSocket: vm.qga,
  });
  // From here on the set exists, whatever fails.
  reverter.keep();
  run.isCut = true;
  // The counts first: the guest writes again.
  const still = stillDisks(plan.chosen, before, await orUndefined(readWriteCounts(monitor)));
  const findings = await cut.verify();
  const counted = guestDisks.map((disk, index) => ({ ...disk, still: still[index] }));
  const worth = compared(
    worthOf(held, counted),
    findings,
    guestDisks.map(({ name }) => name),
  );
  timer.marks(marks);
  const manifest: Manifest = {
    ...draft,
    state: 'cut',
    required: requiredLevel(options.requirement.asked, held.report),
    level: worth.level,
    evidence: [...worth.evidence, ...plan.missing.map(({ what, reason }) => `not in the set: ${what}: ${reason}`)],
    disks: await cutDisks(draft, overlays, findings, worth),
    timings: {
      steps: timer.steps,
      marks,
      ...(marks.cutSentMs === undefined || marks.cutAnsweredMs === undefined
        ? {}
        : { cutMs: roundMs(marks.cutAnsweredMs - marks.cutSentMs) }),
      ...(held.report === undefined
        ? {}
        : { pauseWindowMs: held.report.pauseWindowMs, frozenWindowMs: held.report.frozenWindowMs }),
    },
    monitorLog: run.monitorLog,
    ...defined({ guest: held.report }),
    ...(held.thawError === undefined ? {} : { error: sentence(held.thawError.message) }),
  };
  const unrecorded = await record(store, manifest);
  timer.end('record');
  if (held.thawError !== undefined) throw unconfirmed(held.thawError, manifest, unrecorded);
  if (unrecorded !== undefined) throw unrecorded;
  const whole = await withState(store, manifest, [...firmwareOf(plan.all), ...description.folders]);
  return { manifest: whole, satisfied: satisfies(whole.level, whole.required), missing: plan.missing };
}

/** The disks of the cut as the guest knows them; nobody has counted their writes yet. */
function cutDisksOf({ chosen, all, refs }: CreatePlan): CutDisk[] {
  return chosen.map((disk, index) => ({
    name: diskName(disk),
    ref: refs[index],
    still: undefined,
    pciAddress: disk.pciAddress,
    sharers: all.filter(({ pciAddress }) => pciAddress === disk.pciAddress).length,
  }));
}

function worthOf(held: HeldCut, disks: readonly CutDisk[]): SetWorth {
  if (held.report === undefined || held.doubt !== undefined)
    return crashOnly(disks, held.doubt ?? 'the guest was not held');
  return levelsOf(held.report, disks);
}

// After the cut a monitor that fails must cost evidence at most, not the set.
async function orUndefined<T>(work: Promise<T>): Promise<T | undefined> {
  return await work.catch(() => undefined);
}
