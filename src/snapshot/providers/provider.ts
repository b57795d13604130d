// What makes snapshots, as the rest of this folder sees it: LVM (../lvm/) and programs (external.ts) behind one
// interface. Its verbs are those of the contract for programs (../README.md): probe, plan, take (arm, then cut), mount,
// status, extend, remove.
import type { ProcessId } from '../../linux/process-stat.js';
import type { Maker } from '../maker.js';
import type { Volume } from '../volume.js';

/** Whether a provider takes a volume. */
export type Probe =
  | { readonly fits: false; readonly reason: string }
  | {
      readonly fits: true;
      /** It can cut while the agent holds the filesystem frozen. Else it freezes by itself, and hangs or fails on it. */
      readonly underFreeze: boolean;
    };

export interface SizeWish {
  /** Of each snapshot, in bytes or as a part of its origin; without it as much as was measured to be needed. */
  readonly size?: { readonly bytes: number } | { readonly part: number };
}

/** How a snapshot is mounted: a device, or a folder that is bound. */
export interface MountSpec {
  readonly device: string;
  readonly type: string;
  readonly options: readonly string[];
  /** Other options, tried where these are refused. */
  readonly otherwise?: readonly string[];
}

export interface SnapshotStatus {
  /** `lost`: what is read of it is not what was cut. `gone`: it is not there. */
  readonly state: 'whole' | 'lost' | 'gone';
  /** Of the room it has, and that room; absent where it has none of its own. */
  readonly usedBytes?: number;
  readonly totalBytes?: number;
}

/** A snapshot of one volume, from its plan to its end. */
export interface Snapshot {
  readonly volume: Volume;
  readonly provider: string;
  /** As its provider calls it, for people and for the journal. */
  readonly name: string;
  readonly underFreeze: boolean;
  /** Its cut may wait for what udev does about a device. */
  readonly waitsForUdev: boolean;
  /** Room for what changes while it is held; absent where it has none of its own. */
  readonly cowBytes?: number;
  /** Makes all that can be made while applications run. */
  arm(): Promise<void>;
  /** The process that cuts, once it is armed. It outlives us, ends the cut that is under way, and then itself. */
  readonly worker: ProcessId | undefined;
  /** The cut itself. Starts no program and opens no file: the filesystems may be frozen. */
  cut(): Promise<void>;
  /**
   * Has its worker end what it is doing, and then itself. Gives whether it has ended within `limitMs`; it is never broken
   * off. May be called again, and before arm(). Never throws.
   */
  disarm(limitMs: number): Promise<boolean>;
  /** Once applications run again: makes it fit to be mounted. Throws a CutError if it was not made, or not whole. */
  mount(): Promise<MountSpec>;
  status(): Promise<SnapshotStatus>;
  /** More room. Gives whether there was any. */
  extend(): Promise<boolean>;
  /** Also of what was made in part; may be called again. Throws a CutError if it cannot be removed. */
  remove(): Promise<void>;
}

/** Something that a provider made, found by its marks and not by our notes. */
export interface Made {
  readonly run: string;
  /** As Snapshot.name. */
  readonly name: string;
  /** By its marks; without it by the run's notes alone. */
  readonly maker?: Maker;
}

/** `at-next-activation`: once nobody uses the origin. */
export type Revert = () => Promise<'begun' | 'at-next-activation'>;

export interface Provider {
  readonly name: string;
  /** Throws a CutError if it cannot be told: what may be its kind must not pass for what is not. */
  probe(volume: Volume): Promise<Probe>;
  /** Changes nothing. Throws a CutError if there is no room. Together, since they share it. */
  plan(run: string, volumes: readonly Volume[], wish: SizeWish): Promise<readonly Snapshot[]>;
  /** `made` tells of everything there is; else only the notes of runs do. */
  readonly listsAll: boolean;
  /** All that is there of any run. Throws a CutError if it cannot be looked at. */
  made(): Promise<readonly Made[]>;
  /** Removes what a run that is over left; nothing that has not its marks. Throws a CutError if it stays. */
  removeLeft(left: Made): Promise<void>;
  /**
   * Looks whether the origin can be taken back to the cut, and gives what does it. Absent where a provider cannot. Both
   * throw a CutError.
   */
  planRevert?(made: Made): Promise<Revert>;
  /** Releases what it has opened for its snapshots. */
  close(): Promise<void>;
}
