// The interface of the two ways in which an overlay is merged: by the VM while it runs (running-vm.ts), by qemu-img
// while it is shut off (shut-off-vm.ts). Sets, records and files are disk-commit.ts and ../snapshot-commit.ts.
import type { Monitor } from '../../qmp/monitor.js';
import type { Besides } from '../images/use.js';
import type { Manifest } from '../sets/manifest.js';

/**
 * merge    the overlay holds what the base does not
 * remove   the base holds all of it: only the overlay's file is left
 * nothing  merged before
 * cannot   it cannot be merged as things are: `why`
 */
export interface Step {
  readonly step: 'merge' | 'remove' | 'nothing' | 'cannot';
  readonly why?: string;
  /** Sentences that tell what is known, where only a person can say whether this loses what the VM wrote. */
  readonly doubt?: string;
}

/** How far the clocks of this machine and of a file server may be apart. */
export const CLOCK_SLACK_MS = 2000;

export interface MergeLimits {
  /** How long the overlay may take to be merged, with all the guest writes meanwhile. */
  readonly limitMs: number;
  /** Bytes per second; without it, as fast as it goes. */
  readonly speed?: number;
  readonly signal: AbortSignal;
  /** `12 % of 340 MiB, running`. */
  readonly onProgress: (text: string) => void;
  /** Called, and waited for, right before the VM is told to write to the base again. */
  readonly beforePivot: () => Promise<void>;
}

export interface CommitWay {
  /** The VM's monitors; empty if it is shut off. */
  readonly monitors: readonly Monitor[];

  /** Throws if the VM is in no state in which its disks may be merged; the message says `consequence`. */
  check(consequence: string): Promise<void>;

  /** Per disk of the set, in its order. */
  steps(manifest: Manifest): Promise<Step[]>;

  /** Uses of base and overlay that do not count when this overlay is merged. */
  besides(overlay: string): { readonly base: Besides; readonly overlay: Besides };

  /**
   * Merges one disk. When it returns, the base is durable and holds all; the last traces of it are there until `close`.
   * Throws a CutError `E_MERGE_REFUSED` if nothing was begun.
   */
  merge(manifest: Manifest, index: number, limits: MergeLimits): Promise<void>;

  /** After a failure: true if the VM is known to write to the overlay, as before. */
  isOnOverlay(manifest: Manifest, index: number): Promise<boolean>;

  /** Lets go of the overlay, whose file is to be removed. */
  close(manifest: Manifest, index: number): Promise<void>;
}
