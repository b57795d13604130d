// Looks again at what is mounted and which writers there are, since the plan is as old as `prepare` was long: before
// the writers are held, quickly before the first FIFREEZE, and when all are released. Reads /proc, /sys and the
// writers' folders, and next to nothing of them if nothing changed. How two looks are compared: changes.ts.
import type { FreezeRequest } from '../../consistency.js';
import { describeError } from '../../errors.js';
import { changedWriters, filesystemChanges, writerFiles, type Change, type WriterFiles } from './changes.js';
import type { Extent, LookAtMachine, MachineView } from '../../linux/machine-view.js';
import { concernedWriters, makePlan, type FreezePlan } from './plan.js';
import type { FreezeRules } from './rules.js';
import { findWriters, type WriterFolder } from '../writers/folders.js';

/** Where it looks, and by whose rules. */
export interface LookPlaces {
  readonly view: LookAtMachine;
  readonly rules: FreezeRules;
  readonly writerFolders: readonly WriterFolder[];
  readonly writerOwner: number;
}

export class SecondLook {
  readonly #places: LookPlaces;
  readonly #request: FreezeRequest;
  readonly #view: MachineView;
  readonly #plan: FreezePlan;
  readonly #files: WriterFiles;
  #changes: readonly Change[] = [];

  /** To be made before the writers are read: what changes in between shows as a change. */
  constructor(places: LookPlaces, request: FreezeRequest, view: MachineView, plan: FreezePlan) {
    this.#places = places;
    this.#request = request;
    this.#view = view;
    this.#plan = plan;
    this.#files = writerFiles(places.writerFolders);
  }

  get plan(): FreezePlan {
    return this.#plan;
  }

  /** Filesystems of the cut that came or went, of all looks so far. */
  get changes(): readonly Change[] {
    return this.#changes;
  }

  /**
   * Adds what came or went since the plan. `held`: applications wait, so that less is looked at. Never throws: what
   * cannot be looked at may have changed.
   */
  async atFilesystems(extent: Extract<Extent, 'changes' | 'held'>): Promise<void> {
    const found = await this.#changesNow(extent);
    const known = new Set(this.#changes.map(({ what }) => what));
    this.#changes = [...this.#changes, ...found.filter(({ what }) => !known.has(what))];
  }

  async #changesNow(extent: Extent): Promise<readonly Change[]> {
    const { view, rules } = this.#places;
    try {
      const now = await view(extent);
      if (now === this.#view) return [];
      const plan = makePlan(now.table, now.lookup, this.#request, rules);
      return filesystemChanges(this.#plan, plan);
    } catch (error) {
      return [{ what: 'the mount table', reason: `could not be read again: ${describeError(error)}` }];
    }
  }

  /** Writers that are new or changed since the plan, and should have run as they are now. Never throws. */
  atWriters(): readonly Change[] {
    const { writerFolders, writerOwner } = this.#places;
    const changed = new Set(changedWriters(this.#files, writerFiles(writerFolders)));
    if (changed.size === 0) return [];
    const found = findWriters(writerFolders, { owner: writerOwner }).filter(
      ({ path, problemKind }) => problemKind !== 'switched-off' && (changed.has(path) || changed.has(`${path}.json`)),
    );
    const unsafe = found.filter(({ problem }) => problem !== undefined);
    const { concerned } = concernedWriters(found, this.#view.table, this.#plan);
    const reason = 'it is new or was changed after the session was planned';
    return [...unsafe, ...concerned.filter(({ required }) => required)].map(({ path }) => ({ what: path, reason }));
  }
}
