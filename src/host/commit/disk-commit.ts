// The commit of one disk, step by step, each recorded before the next: merged, written down, closed, its overlay
// removed.
// Who merges is way.ts; which disks are committed, and what the set is afterwards, is ../snapshot-commit.ts.
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { defined } from '../../defined.js';
import { BridgeError, CutError, UnreachableError, UsageError } from '../../errors.js';
import { syncPath } from '../images/durable-file.js';
import { whyNotDropped } from '../images/references.js';
import { whyInUse, type Claim } from '../images/use.js';
import { everySet, witnessesFor } from '../sets/claims.js';
import { withNamedBase } from '../sets/disk-layers.js';
import type { Manifest, ManifestDisk } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { withMergesCounted } from '../sets/merged-disks.js';
import { overlaysThere } from '../sets/own-overlays.js';
import { diskAt } from './set-record.js';
import type { CommitWay, Step } from './way.js';

export interface DiskCommitOptions {
  readonly store: ManifestStore;
  readonly stateDir: string;
  readonly set: string;
  /** How long each overlay may take to be merged, with all the guest writes meanwhile. */
  readonly limitMs: number;
  /** Bytes per second; without it, as fast as it goes. */
  readonly speed?: number;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

/** Commits the disks of one set, one after the other. */
export class DiskCommit {
  /** Files that have the names of merged overlays, but are not known to be the set's own any more: left alone. */
  readonly foreign: string[] = [];
  readonly #way: CommitWay;
  readonly #options: DiskCommitOptions;
  readonly #saved: readonly Claim[];

  constructor(way: CommitWay, options: DiskCommitOptions, saved: readonly Claim[]) {
    this.#way = way;
    this.#options = options;
    this.#saved = saved;
  }

  /**
   * Throws a UsageError if somebody needs the base's bytes or the overlay: a merge changes the one and removes the
   * other.
   */
  async refuseNeeded(manifest: Manifest, index: number): Promise<void> {
    const { id, base, overlay } = diskAt(manifest, index);
    const why = await whyNotDropped(overlay.file);
    if (why !== undefined) throw new UsageError('E_INTERNAL_SNAPSHOTS', `disk ${id}: ${why}; not merged`);
    const witnesses = await witnessesFor(this.#options.stateDir, manifest, this.#way.monitors, this.#saved);
    const besides = this.#way.besides(overlay.file);
    const use =
      (await whyInUse([base.file], witnesses, besides.base)) ??
      (await whyInUse([overlay.file], witnesses, besides.overlay));
    if (use !== undefined) throw new UsageError('E_IN_USE', `disk ${id}: ${use.file}: ${use.why}; not merged`);
  }

  /** Does what `step` says, and gives the set with the disk merged. Throws what CommitWay does, and a CutError. */
  async run(before: Manifest, index: number, step: Step | undefined): Promise<Manifest> {
    // In a set of an older version only the overlay's header has the base's offset and the like, and the overlay goes.
    const { base } = await withNamedBase(diskAt(before, index));
    const isMerge = step?.step === 'merge';
    if (isMerge) await this.#merge(before, index, base);
    // Durable before its last traces in QEMU are removed: without them nobody could tell that it is merged.
    await this.#mark(index, {
      base,
      pivoting: false,
      pivoted: true,
      ...(isMerge ? { pivotedAt: new Date().toISOString() } : {}),
    });
    await this.#way.close(before, index);
    await this.#removeOverlay(before, index);
    return await this.#mark(index, { merged: true });
  }

  /**
   * The set as it is recorded after `run` failed with `cause`. A disk that was told to change over, and is known to be back
   * on its overlay, is in no doubt any more: this QEMU has been asked all the time.
   */
  async afterFailure(index: number, cause: unknown): Promise<Manifest> {
    const { store, set } = this.#options;
    const manifest = await store.read(set);
    const { pivoting, pivoted } = diskAt(manifest, index);
    if (pivoting !== true || pivoted === true || cause instanceof UnreachableError) return manifest;
    const isBack = await this.#way.isOnOverlay(manifest, index).catch(() => false);
    return isBack ? await this.#mark(index, { pivoting: false }) : manifest;
  }

  async #merge(before: Manifest, index: number, base: ManifestDisk['base']): Promise<void> {
    const { limitMs, speed, signal, onProgress } = this.#options;
    const { id, merge } = diskAt(before, index);
    const consequence = `disk ${id} is not merged`;
    await this.#way.check(consequence);
    await this.#mark(index, { base, merge: 'begun' });
    try {
      await this.#way.merge(before, index, {
        limitMs,
        ...defined({ speed }),
        signal,
        onProgress: (text) => {
          onProgress(`merging disk ${id}: ${text}`);
        },
        beforePivot: async () => {
          signal.throwIfAborted();
          await this.#way.check(consequence);
          await this.#mark(index, { pivoting: true });
        },
      });
    } catch (error) {
      if (isRefused(error) && merge !== undefined) await this.#mark(index, { merge });
      throw error;
    }
  }

  async #mark(index: number, what: Partial<ManifestDisk>): Promise<Manifest> {
    const { store, set } = this.#options;
    const manifest = await store.read(set);
    const disks = manifest.disks.map((disk, at) => (at === index ? { ...disk, ...what } : disk));
    return await store.write(withMergesCounted({ ...manifest, disks }));
  }

  async #removeOverlay(manifest: Manifest, index: number): Promise<void> {
    const { overlay } = diskAt(manifest, index);
    const { stateDir } = this.#options;
    const { foreign } = await overlaysThere(manifest, (await everySet(stateDir)).manifests);
    // It was removed before this was recorded, and the name is another's by now; or it is what an older version made.
    if (overlay.asCut !== undefined && foreign.includes(overlay.file)) {
      this.foreign.push(overlay.file);
      return;
    }
    const witnesses = await witnessesFor(stateDir, manifest, this.#way.monitors, this.#saved);
    const use = await whyInUse([overlay.file], witnesses);
    if (use !== undefined) throw new CutError('E_IN_USE', `${use.file} is merged, but not removed: ${use.why}`);
    await rm(overlay.file, { force: true });
    await syncPath(dirname(overlay.file));
  }
}

function isRefused(error: unknown): boolean {
  return error instanceof BridgeError && error.code === 'E_MERGE_REFUSED';
}
