// The interface of those who merge a layer in the middle of a chain into the one below it: the QEMU that runs
// (running-merger.ts), libvirt (domain-merger.ts), or qemu-img with the VM shut off (shut-off-merger.ts). It goes in
// two steps, so that what was copied is on the disk, and written down, before anything relies on it.
import type { Monitor } from '../../qmp/monitor.js';
import type { ManifestDisk } from '../sets/manifest.js';

/**
 * base <- layer <- above becomes base <- above. `layer` keeps what it holds: it stays a true state until it is removed.
 */
export interface MergeStep {
  /** Names the merge in QEMU: one that was begun is known again. */
  readonly jobId: string;
  readonly base: { readonly file: string; readonly format: string };
  /** The name of the base in the header of `above`: its path, or QEMU's name of it with options. */
  readonly baseName: string;
  /** The disk of the set whose overlay `layer` is: it tells what lies below. */
  readonly disk: ManifestDisk;
  /** An overlay of ours: qcow2. */
  readonly layer: string;
  /** An overlay of ours, too. */
  readonly above: string;
}

export interface MergeLimits {
  readonly limitMs: number;
  /** Bytes per second. */
  readonly speed?: number;
  readonly signal: AbortSignal;
  readonly onProgress: (percent: number) => void;
}

export interface Merger extends AsyncDisposable {
  /** The VM's monitors; empty if it is shut off. */
  readonly monitors: readonly Monitor[];

  /**
   * Throws a UsageError if it cannot be merged, before anything is changed, and a CutError while the VM is being migrated.
   * The images that the VM runs on are looked at, too.
   */
  check(step: MergeStep): Promise<void>;

  /** Copies all of `layer` into `base`, durably. What reads through `above` reads the same all the while. */
  copy(step: MergeStep, limits: MergeLimits): Promise<void>;

  /** Lets `above` name `base`, durably. After `copy`, in this process or in one that ended. */
  change(step: MergeStep, limits: MergeLimits): Promise<void>;

  /** Closes `layer`, which nothing lies on any more, and forgets the merge. May be called again. */
  forget(step: MergeStep): Promise<void>;
}
