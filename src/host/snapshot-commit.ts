// `snapshot commit`: merges a set's overlays back into their bases, and removes them; by the VM while the guest writes
// on, or by qemu-img while it is shut off (commit/way.ts). Each disk is committed by itself (commit/disk-commit.ts);
// one that cannot be merged keeps no other from it. May be ended at any time and called again: it goes on from what VM
// and files say.
import { BridgeError, CutError, QuiesceError, UnreachableError, UsageError, describeError } from '../errors.js';
import { DiskCommit, type DiskCommitOptions } from './commit/disk-commit.js';
import { byRunningVm } from './commit/running-vm.js';
import {
  atEnd,
  checkState,
  chooseDisks,
  diskAt,
  reasons,
  whyNot,
  withMarks,
  type DiskSelection,
} from './commit/set-record.js';
import { byShutOffVm } from './commit/shut-off-vm.js';
import type { CommitWay, Step } from './commit/way.js';
import type { Confirm } from '../confirm.js';
import type { Claim } from './images/use.js';
import { Journal } from './sets/journal.js';
import { monitorOf, type Manifest } from './sets/manifest.js';
import { newerSets, settleState } from './sets/set-state.js';
import { definitionAt } from './vm/definition.js';
import { placeNow } from './vm/identity.js';
import type { Place } from './vm/place.js';
import type { Hypervisor } from './vm/hypervisor.js';

export interface CommitOptions extends DiskCommitOptions {
  /** The disks that are committed; without it, all of the set. */
  readonly disks?: DiskSelection;
  /** Asked only if only a person can say whether what the VM wrote is lost. */
  readonly confirm: Confirm;
}

export interface OfflineCommitOptions extends CommitOptions {
  /** The VM's monitor, besides the one the set was made through: nobody may listen at either. */
  readonly monitor: Place;
  readonly monitorTimeoutMs: number;
}

export interface Committed {
  readonly manifest: Manifest;
  /** Files that have the names of merged overlays, but are not known to be the set's own any more: left alone. */
  readonly foreign: readonly string[];
}

/**
 * Commits the set; its state is `committed` then, and the state of the cut is gone; or `cut`, if only some of its disks
 * were to be committed. Throws a UsageError if newer sets lie on it, somebody else needs a base or an overlay, or no disk
 * can be merged; a QuiesceError if the answer was no: nothing was changed in these cases. A CutError names the disks that
 * are left, each with its reason: the VM goes on writing to their overlays, and commit may be called again.
 */
export async function commitSnapshot(hypervisor: Hypervisor, options: CommitOptions): Promise<Committed> {
  return await underJournal(options, () => new Commit(byRunningVm(hypervisor), options, hypervisor).run());
}

/** Commits the set of a VM that is shut off. Throws as `commitSnapshot` does, and a UsageError if the VM runs. */
export async function commitShutOff(options: OfflineCommitOptions): Promise<Committed> {
  return await underJournal(options, async (manifest) => {
    const { store, monitor, monitorTimeoutMs, limitMs, signal } = options;
    const made = monitorOf(manifest);
    const way = byShutOffVm({ store, monitors: [monitor, made], monitorTimeoutMs, limitMs, signal });
    const saved = await definitionAt(placeNow(made, store.identity)).savedState();
    return await new Commit(way, options, undefined, saved).run();
  });
}

/** Sentences that tell what only a person can decide before these disks of the set are committed. */
export async function commitDoubts(
  hypervisor: Hypervisor,
  manifest: Manifest,
  disks: DiskSelection | undefined,
): Promise<string[]> {
  const steps = await byRunningVm(hypervisor).steps(manifest);
  return chooseDisks(manifest, disks).flatMap((index) => steps[index]?.doubt ?? []);
}

async function underJournal(
  { store, set }: CommitOptions,
  work: (manifest: Manifest) => Promise<Committed>,
): Promise<Committed> {
  // Says that there is no such set, before a journal is begun.
  const manifest = await store.read(set);
  const journal = await Journal.begin(store, set, 'commit');
  try {
    return await work(manifest);
  } finally {
    await journal.end();
  }
}

/** One run of a commit over the disks of a set. */
class Commit {
  readonly #way: CommitWay;
  readonly #options: CommitOptions;
  readonly #hypervisor: Hypervisor | undefined;
  readonly #disks: DiskCommit;

  constructor(way: CommitWay, options: CommitOptions, hypervisor?: Hypervisor, saved: readonly Claim[] = []) {
    this.#way = way;
    this.#options = options;
    this.#hypervisor = hypervisor;
    this.#disks = new DiskCommit(way, options, saved);
  }

  async run(): Promise<Committed> {
    const { store, set, signal } = this.#options;
    const all = await store.readAllOrRefuse();
    const monitors = this.#hypervisor === undefined ? [] : [this.#hypervisor];
    let manifest = withMarks(await settleState(monitors, store, await store.read(set)));
    checkState(manifest);
    const above = await newerSets(manifest, all);
    if (above.length > 0) {
      throw new UsageError('E_NEWER_SETS', `newer snapshot sets lie on ${set}: commit ${above.join(', ')} first`);
    }
    await this.#way.check(`${set} is not committed`);
    const chosen = chooseDisks(manifest, this.#options.disks);
    const steps = await this.#agreedSteps(manifest, chosen);
    const work = chosen.filter((index) => steps[index]?.step === 'merge' || steps[index]?.step === 'remove');
    const left = new Map(chosen.flatMap((index) => whyNot(steps[index]).map((why) => [index, why] as const)));
    if (work.length === 0 && left.size > 0) {
      throw new UsageError('E_NOT_ACTIVE', reasons(manifest, left));
    }
    for (const index of work) if (steps[index]?.step === 'merge') await this.#disks.refuseNeeded(manifest, index);
    const begun = manifest.disks.map((disk, index) =>
      work.includes(index) ? { ...disk, merge: disk.merge ?? ('asked' as const) } : disk,
    );
    manifest = await store.write({ ...manifest, state: 'committing', disks: begun });
    for (const index of work) {
      try {
        signal.throwIfAborted();
        // The first was looked at a moment ago.
        if (index !== work[0] && steps[index]?.step === 'merge') await this.#disks.refuseNeeded(manifest, index);
        manifest = await this.#disks.run(manifest, index, steps[index]);
      } catch (cause) {
        manifest = await this.#disks.afterFailure(index, cause);
        if (signal.aborted)
          throw new CutError('E_INTERRUPTED', `interrupted: ${set} is merged in part; ${this.#goOn()}`, { cause });
        left.set(index, describeError(cause));
        if (isOfAll(cause)) break;
      }
    }
    for (const index of work) {
      if (!left.has(index) && !diskAt(manifest, index).merged) left.set(index, 'its merge was not begun');
    }
    manifest = await store.write(atEnd(manifest));
    if (left.size === 0) return { manifest, foreign: this.#disks.foreign };
    const merged = chosen.filter((index) => manifest.disks[index]?.merged === true).length;
    throw new CutError('E_COMMIT', `${merged} of ${chosen.length} disks merged back; ${reasons(manifest, left)}`, {
      facts: {
        set,
        state: manifest.state,
        left: [...left].map(([index, reason]) => ({ disk: manifest.disks[index]?.id, reason })),
      },
    });
  }

  #goOn(): string {
    if (this.#hypervisor !== undefined) return 'commit it again';
    return 'commit it again, with --offline as long as the VM is shut off';
  }

  /** The steps, once a person has agreed where only a person can decide. */
  async #agreedSteps(manifest: Manifest, chosen: readonly number[]): Promise<readonly Step[]> {
    const { set, confirm } = this.#options;
    const steps = await this.#way.steps(manifest);
    const doubts = chosen.flatMap((index) => steps[index]?.doubt ?? []);
    if (doubts.length === 0) return steps;
    if (!(await confirm(`${doubts.join('; ')}. Commit ${set}?`))) {
      throw new QuiesceError('E_DECLINED', 'not committed: the answer was no');
    }
    // While somebody thought about the question the VM may have been started, or shut off.
    await this.#way.check(`${set} is not committed`);
    const again = await this.#way.steps(manifest);
    if (again.every(({ step }, index) => step === steps[index]?.step)) return again;
    throw new UsageError('E_STATE_OF_SET', `${set} is not as it was when you were asked: nothing was committed`);
  }
}

/** True if the other disks would fail likewise. */
function isOfAll(error: unknown): boolean {
  if (error instanceof UnreachableError || error instanceof UsageError) return true;
  return error instanceof BridgeError && error.code === 'E_VM_STATE';
}
