// Cuts all of a set while the agent holds the guest: one freeze, one cut after another, one thaw. A cut that failed may
// have left a device suspended, and nothing is thawed before that is put right, within the bound of the section.
import type { ConsistencyLevel, FreezeReport } from '../consistency.js';
import { CutError, describeError } from '../errors.js';
import { isSuspended, mappedDevice } from '../linux/device-mapper.js';
import { monotonicMs } from '../linux/clock.js';
import { goFirst } from './go-first.js';
import type { SetPlan } from './planner.js';
import { hasProgram, mustRun, type Run } from './program.js';
import type { Snapshot } from './providers/provider.js';
import { Requester, type Hold, type Section } from './requester.js';
import { refuseOthers } from './same-filesystems.js';
import { resumeSuspended, suspendedOf } from './suspended.js';
import { udevLast } from './udev-last.js';

/** Of a section, for what puts a failed cut right after its worker has ended. */
const RESUME_MS = 3_000;
const SETTLE_LIMIT_S = 2;
/** A worker that is idle ends at once. */
const DISARM_LIMIT_MS = 5_000;

export interface CutRequest {
  readonly leaseMs: number;
  readonly require: ConsistencyLevel | 'auto';
  readonly agentSocket: string | undefined;
}

export interface CutPlaces {
  readonly run: Run;
  /** Default `/sys`. */
  readonly sysRoot?: string;
}

/**
 * Gives the report of the session in which all were cut. Throws a QuiesceError if the guest could not be held, a CutError
 * if a cut failed; an error that says `unconfirmed` or an UnreachableError if it is not known to be thawed.
 */
export async function cutAll(plan: SetPlan, request: CutRequest, places: CutPlaces): Promise<FreezeReport> {
  const { snapshots } = plan;
  await using requester = await Requester.connect(request.agentSocket);
  for (const snapshot of snapshots) await snapshot.arm();
  await makeQuiet(snapshots, places);
  const udevGoesOn = await udevOutOfTheWay(snapshots, places);
  const goBack = goFirst(process.pid);
  let report: FreezeReport;
  try {
    report = await holdAndCut(requester, plan, request, places);
  } finally {
    // What is started from here on is nobody who should go first.
    goBack();
    await udevGoesOn();
  }
  for (const snapshot of snapshots) await snapshot.disarm(DISARM_LIMIT_MS);
  return report;
}

async function holdAndCut(
  requester: Requester,
  plan: SetPlan,
  { leaseMs, require }: CutRequest,
  places: CutPlaces,
): Promise<FreezeReport> {
  const { snapshots, run } = plan;
  const mountpoints = snapshots.map(({ volume }) => volume.mountpoint);
  const leave = snapshots.filter(({ underFreeze }) => !underFreeze).map(({ volume }) => volume.mountpoint);
  const name = `fsfreeze-snapshot ${run}, pid ${process.pid}`;
  const hold = await requester.hold({ requester: name, mountpoints, leave, leaseMs, require });
  let failure: unknown;
  try {
    refuseOthers(
      hold.report,
      snapshots.map(({ volume }) => volume),
    );
    await cutInSections(hold, plan, leaseMs, places);
  } catch (error) {
    failure = error;
  }
  const report = await thawn(hold, failure);
  if (failure !== undefined) throw new CutError('E_CUT', describeError(failure), { cause: failure });
  return report;
}

/** What else would be done while everything stands still. Throws a CutError if dmsetup cannot be run. */
async function makeQuiet(snapshots: readonly Snapshot[], { run, sysRoot = '/sys' }: CutPlaces): Promise<void> {
  if (snapshots.every(({ volume }) => mappedDevice(sysRoot, volume.device) === undefined)) return;
  // What resumes a device is in memory then, should it be wanted while its own filesystem is frozen.
  await mustRun(run, ['dmsetup', 'version']);
  // The programs that udev starts for the devices that are made by now.
  if (hasProgram('udevadm')) await run(['udevadm', 'settle', `--timeout=${SETTLE_LIMIT_S}`]);
}

/** Not where a cut may need it: on a machine that is busy it might not get on at all. */
async function udevOutOfTheWay(snapshots: readonly Snapshot[], { run }: CutPlaces): Promise<() => Promise<void>> {
  if (snapshots.some(({ waitsForUdev }) => waitsForUdev))
    return async () => {
      await Promise.resolve();
    };
  return await udevLast(run);
}

/** What failed before is told, too, if the thaw fails. */
async function thawn(hold: Hold, failure: unknown): Promise<FreezeReport> {
  try {
    return await hold.thaw();
  } catch (error) {
    if (failure === undefined) throw error;
    const both = `${describeError(failure)}; and then: ${describeError(error)}`;
    throw new CutError('E_CUT', both, { cause: new AggregateError([failure, error], both) });
  }
}

async function cutInSections(
  hold: Hold,
  { snapshots, run }: SetPlan,
  leaseMs: number,
  places: CutPlaces,
): Promise<void> {
  const { sysRoot = '/sys' } = places;
  let renewedMs = monotonicMs();
  for (const one of byWorker(snapshots)) {
    const section = await hold.beginSection(one[0]?.worker);
    try {
      for (const snapshot of one) {
        if (monotonicMs() - renewedMs > leaseMs / 2) {
          await hold.renew(leaseMs);
          renewedMs = monotonicMs();
        }
        await section.goOn();
        await snapshot.cut();
        // A tool may say that it is done, and not have come to its end: LVM's shell tells no exit codes.
        if (isSuspended(sysRoot, snapshot.volume.device))
          throw new CutError('E_CUT', `${snapshot.volume.source} was left suspended by its cut`);
      }
    } catch (error) {
      const left = await putRight(one, run, section, { ...places, sysRoot });
      if (left === undefined) throw error;
      throw new CutError('E_CUT', `${describeError(error)}; ${left}`, { cause: error });
    }
  }
}

/** Waits for the end of the worker, then resumes what it left suspended. Gives what is not right. Never throws. */
async function putRight(
  snapshots: readonly Snapshot[],
  run: string,
  section: Section,
  { run: runProgram, sysRoot }: Required<CutPlaces>,
): Promise<string | undefined> {
  for (const snapshot of snapshots)
    if (!(await snapshot.disarm(Math.max(0, section.remainingMs - RESUME_MS))))
      return `process ${snapshot.worker?.pid ?? 0} is still busy with ${snapshot.name}`;
  const volumes = snapshots.map(({ volume }) => ({ device: volume.device, run }));
  try {
    for (const volume of volumes) await resumeSuspended(runProgram, sysRoot, volume);
  } catch (error) {
    const left = volumes.flatMap((volume) => suspendedOf(sysRoot, volume));
    return `${describeError(error)}; still suspended: ${left.join(', ')} (dmsetup resume)`;
  }
  return undefined;
}

/** Those that one process cuts share a section. */
function byWorker(snapshots: readonly Snapshot[]): readonly (readonly Snapshot[])[] {
  const groups = new Map<number | undefined, Snapshot[]>();
  for (const snapshot of snapshots) {
    const pid = snapshot.worker?.pid;
    groups.set(pid, [...(groups.get(pid) ?? []), snapshot]);
  }
  return [...groups.values()];
}
