// Makes a set of snapshots and takes it away again. Everything slow is done while applications run: planning, the room,
// mounting. Between hold and thaw there are only the cuts (src/freeze/README.md, "The steps"). What is made is noted
// before (journal.ts).
import { lasted, satisfies, type ConsistencyLevel, type FreezeReport } from '../consistency.js';
import { CutError, describeError } from '../errors.js';
import { keepArtefacts } from './artefacts.js';
import { cutAll, type CutPlaces } from './cut-set.js';
import { processNote, type Journal, type RunRecord, type SourceResult } from './journal.js';
import { judgeSet, type JudgedSource, type Judgement } from './level.js';
import type { SetPlan } from './planner.js';
import type { MountSpec, Snapshot } from './providers/provider.js';

export interface TakeRequest {
  readonly kind: 'exec' | 'tree';
  readonly paths: readonly string[];
  readonly target?: string;
  readonly isDetached?: boolean;
  readonly leaseMs: number;
  /** Below it nothing is kept; `auto`: what the agent asks of its writers. */
  readonly require: ConsistencyLevel | 'auto';
  readonly agentSocket: string | undefined;
}

/** A snapshot with what it is mounted by. */
export interface Mountable {
  readonly snapshot: Snapshot;
  readonly spec: MountSpec;
}

export interface TakenSet {
  readonly record: RunRecord;
  readonly mountable: readonly Mountable[];
  /** Absent if nothing was held, since nothing could be cut. */
  readonly report?: FreezeReport;
}

/**
 * Throws a QuiesceError if the guest could not be held as required, a CutError if a cut failed or the level is too low.
 * Nothing is left held or made then; what could not be removed is in the error, and gc's to remove.
 */
export async function takeSet(
  plan: SetPlan,
  request: TakeRequest,
  journal: Journal,
  places: CutPlaces,
): Promise<TakenSet> {
  const begun = beginRecord(plan, request);
  journal.begin(begun);
  try {
    const report = plan.snapshots.length === 0 ? undefined : await cutAll(plan, request, places);
    const judged = judgeSet(judging(plan), report);
    requireLevel(judged, request.require, report);
    const mountable = await Promise.all(
      plan.snapshots.map(async (snapshot): Promise<Mountable> => ({ snapshot, spec: await snapshot.mount() })),
    );
    const sources = begun.sources.map((source, place): SourceResult => {
      const { snapshot } = plan.sources[place] ?? {};
      const device = mountable.find((one) => one.snapshot === snapshot)?.spec.device;
      const level = judged.sources[place] ?? 'none';
      return { ...source, level, ...(device === undefined ? {} : { device }) };
    });
    const artefacts = keepArtefacts(journal.folderOf(plan.run), report?.artefacts);
    const record: RunRecord = {
      ...begun,
      state: 'held',
      level: judged.level,
      ...(artefacts === undefined ? {} : { artefacts }),
      evidence: [...judged.evidence],
      sources,
    };
    journal.update(record);
    return { record, mountable, ...(report === undefined ? {} : { report }) };
  } catch (error) {
    throw await removedAfter(error, plan.snapshots, () => {
      journal.forget(plan.run);
    });
  }
}

/** A filesystem is shown whole if one source shows it from its root. */
function judging({ sources }: SetPlan): readonly JudgedSource[] {
  const whole = new Set(sources.filter(({ source }) => source.inside === '/').map(({ source }) => source.filesystem));
  return sources.map(({ way, source: { filesystem } }) => ({
    way,
    ...(filesystem === undefined || whole.has(filesystem) ? {} : { partOf: filesystem.mountpoint }),
  }));
}

function beginRecord(
  { run, sources, snapshots }: SetPlan,
  { kind, paths, target, isDetached = false }: TakeRequest,
): RunRecord {
  return {
    run,
    kind,
    state: 'making',
    isDetached,
    holder: processNote(process.pid),
    begun: new Date().toISOString(),
    paths: [...paths],
    ...(target === undefined ? {} : { target }),
    evidence: [],
    sources: sources.map(({ source, way, snapshot, reason }) => ({
      at: source.at,
      way,
      level: 'none',
      ...(snapshot === undefined ? {} : { provider: snapshot.provider, snapshot: snapshot.name }),
      ...(snapshot?.cowBytes === undefined ? {} : { cowBytes: snapshot.cowBytes }),
      ...(reason === undefined ? {} : { reason }),
    })),
    snapshots: snapshots.map(({ provider, name, volume }) => ({ provider, name, of: volume.mountpoint })),
    mounts: [],
  };
}

/** With `auto` the agent has asked of its writers what they can; what is left to ask is that the hold lasted. */
function requireLevel(
  { level, evidence }: Judgement,
  require: ConsistencyLevel | 'auto',
  report: FreezeReport | undefined,
): void {
  const isMet = require === 'auto' ? report === undefined || lasted(report) : satisfies(level, require);
  if (isMet) return;
  const expected = require === 'auto' ? 'a hold that lasts until all is cut' : `level ${require}`;
  throw new CutError('E_BELOW_REQUIRED', `expected ${expected}, reached ${level}: ${evidence.join('; ')}`);
}

/** Removes all, last made first. Throws an AggregateError that names what is left. */
export async function removeAll(snapshots: readonly Snapshot[]): Promise<void> {
  const failures: unknown[] = [];
  for (const snapshot of snapshots.toReversed()) {
    try {
      await snapshot.remove();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0)
    throw new AggregateError(failures, `not removed: ${failures.map((one) => describeError(one)).join('; ')}`);
}

/** The error, after everything was removed; `forget` only if nothing is left. */
async function removedAfter(error: unknown, snapshots: readonly Snapshot[], forget: () => void): Promise<unknown> {
  try {
    await removeAll(snapshots);
    forget();
    return error;
  } catch (left) {
    const cause = new AggregateError([error, left], describeError(left));
    return new CutError('E_UNDO', `${describeError(error)}; ${describeError(left)} (fsfreeze-snapshot gc removes it)`, {
      cause,
    });
  }
}
