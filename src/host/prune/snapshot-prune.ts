// `snapshot prune`: keeps the newest sets of a VM, and merges the older ones out of the way. With external overlays the
// oldest state lies at the bottom, and is forgotten by merging what was written after it into it. The newer sets stay,
// and the VM may run.
import { defined } from '../../defined.js';
import { QuiesceError, UsageError } from '../../errors.js';
import { QmpClient } from '../../qmp/client.js';
import { throwIfInterrupted, type Confirm } from '../../confirm.js';
import { baseDoubts } from '../sets/base-state.js';
import { everySet } from '../sets/claims.js';
import { Journal, refuseBusy } from '../sets/journal.js';
import { monitorOf, type Manifest } from '../sets/manifest.js';
import { inOneSpelling } from '../sets/one-spelling.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { deleteSnapshot } from '../snapshot-delete.js';
import { placeNow } from '../vm/identity.js';
import { isOf, meansShutOff } from '../vm/monitors.js';
import { placeText, type DomainPlace, type Place } from '../vm/place.js';
import { mergeSet } from './merge-set.js';
import type { Merger } from './merger.js';
import { planPrune, type PrunePlan } from './prune-plan.js';
import { RunningMerger } from './running-merger.js';

export interface PruneOptions {
  /** The sets of a VM whose lock the caller holds. */
  readonly store: ManifestStore;
  readonly stateDir: string;
  /** The VM's monitor, besides those its sets were made through. */
  readonly monitor: Place;
  readonly keep: number;
  readonly olderThanMs?: number;
  readonly dryRun: boolean;
  readonly monitorTimeoutMs: number;
  /** How long each disk of each set may take. */
  readonly limitMs: number;
  /** Bytes per second. */
  readonly speed?: number;
  readonly confirm: Confirm;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

/**
 * Gives what was done, or with `dryRun` would be. Throws a UsageError for what must not be merged, a QuiesceError if the
 * answer was no (nothing was changed), a CutError if a merge failed, was interrupted, or the VM is being migrated:
 * prune again.
 */
export async function pruneSnapshots(options: PruneOptions): Promise<PrunePlan> {
  const { store, stateDir, dryRun, confirm, signal } = options;
  const plan = await planOf(options);
  if (dryRun || plan.merge.length + plan.forget.length === 0) return plan;
  if (plan.merge.length > 0) {
    await refuseBusySets(options, plan);
    const names = plan.merge.map(({ set }) => set).join(', ');
    const question = `${await doubtsOf(plan.merge)}The cuts of ${names} are merged into what lies below, and are gone. Prune?`;
    if (!(await confirm(question))) throw new QuiesceError('E_DECLINED', 'not pruned: the answer was no');
    throwIfInterrupted(signal, 'nothing was pruned');
    await mergeAll(options, plan);
  }
  for (const { set } of plan.forget) {
    const { monitor, monitorTimeoutMs } = options;
    await deleteSnapshot({ store, stateDir, set, monitor, monitorTimeoutMs, confirm, signal });
  }
  return plan;
}

async function planOf({ store, keep, olderThanMs }: PruneOptions): Promise<PrunePlan> {
  if (!Number.isInteger(keep) || keep < 1) {
    throw new UsageError('E_LIMIT', `--keep: expected 1 or more, found ${keep}: the newest set is merged by "commit"`);
  }
  const manifests = await inOneSpelling(await store.readAllOrRefuse());
  const choice = { keep, nowMs: Date.now(), ...defined({ olderThanMs }) };
  return planPrune(manifests, choice);
}

/** Sentences that tell what only a person can decide; a base that is known to be lost is refused elsewhere. */
async function doubtsOf(merge: readonly Manifest[]): Promise<string> {
  let doubts = '';
  for (const manifest of merge.filter(({ state }) => state === 'cut')) {
    for (const [{ base, overlay }, { is, why }] of await baseDoubts(manifest, [])) {
      if (is !== 'unknown') continue;
      doubts += `${why}: ${overlay.file} is merged into ${base.file}, over what may have been written there. `;
    }
  }
  return doubts;
}

/** Throws a UsageError if another process is at one of the sets, before anybody is asked. */
async function refuseBusySets({ store }: PruneOptions, { merge, keep }: PrunePlan): Promise<void> {
  for (const { set } of [...merge, ...keep]) await refuseBusy(store, set);
}

async function mergeAll(options: PruneOptions, asked: PrunePlan): Promise<void> {
  const { store, stateDir, signal } = options;
  // All of them: a copy of a newer set reads the older ones' layers.
  const journals: Journal[] = [];
  try {
    for (const { set } of [...asked.merge, ...asked.keep]) journals.push(await Journal.begin(store, set, 'prune'));
    // While somebody thought about the question another set may have been made.
    const plan = await planOf(options);
    refuseOther(asked, plan);
    await using merger = await openMerger(options, plan);
    const live = new Map([...plan.merge, ...plan.keep].map((manifest) => [manifest.set, manifest]));
    const others = (await everySet(stateDir)).manifests.filter(
      ({ id }) => ![...live.values()].some((own) => own.id === id),
    );
    for (const { set } of plan.merge) {
      throwIfInterrupted(signal, `${set} and what is newer were not merged`);
      await mergeSet(set, { ...options, merger, live, others });
      live.delete(set);
      await store.remove(set);
    }
  } finally {
    for (const journal of journals) await journal.end();
  }
}

function refuseOther(asked: PrunePlan, now: PrunePlan): void {
  const ids = ({ merge, keep }: PrunePlan): string => [...merge, ...keep].map(({ id }) => id).join(' ');
  if (ids(asked) === ids(now)) return;
  throw new UsageError('E_STATE_OF_SET', 'nothing was pruned: the sets are others by now; look, and prune again');
}

/** Opens the VM itself as the merger if it runs. Throws an UnreachableError for a monitor that is there but in use. */
async function openMerger(options: PruneOptions, { merge, keep }: PrunePlan): Promise<Merger> {
  const { store, monitor } = options;
  const places = [monitor, ...[...merge, ...keep].map(monitorOf)].map((place) => placeNow(place, store.identity));
  const domains: DomainPlace[] = [];
  for (const place of new Map(places.map((each) => [placeText(each), each])).values()) {
    if (place.kind === 'libvirt') domains.push(place);
    const merger = await mergerAt(place, options);
    if (merger !== undefined) return merger;
  }
  const overlays = [...merge, ...keep].flatMap(({ disks }) => disks.map(({ overlay }) => overlay.file));
  // libvirt's XML comes with it.
  const { ShutOffMerger } = await import('./shut-off-merger.js');
  return new ShutOffMerger(domains, overlays);
}

/** The merger there; undefined if nobody is there, or another VM, whose socket it is by now. */
async function mergerAt(place: Place, { store, monitorTimeoutMs }: PruneOptions): Promise<Merger | undefined> {
  let merger: Merger;
  try {
    if (place.kind === 'socket') {
      merger = new RunningMerger(await QmpClient.connect(place.path, { timeoutMs: monitorTimeoutMs }));
    } else {
      // Code that only a domain needs is loaded when there is one.
      const { DomainMerger } = await import('./domain-merger.js');
      merger = await DomainMerger.open(place, monitorTimeoutMs);
    }
  } catch (error) {
    if (await meansShutOff(error, place)) return undefined;
    throw error;
  }
  try {
    const [monitor] = merger.monitors;
    if (monitor === undefined || (await isOf(monitor, store.identity))) return merger;
  } catch (error) {
    await merger[Symbol.asyncDispose]();
    throw error;
  }
  await merger[Symbol.asyncDispose]();
  return undefined;
}
