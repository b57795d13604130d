// The interface to who runs a VM: questions, asked as QMP commands, and the few acts that change the VM's disks. Plain
// QEMU is plain-qemu.ts, a libvirt domain libvirt/domain.ts, and open-hypervisor.ts chooses. Nothing here knows of
// sets, levels or guests. A VM that is shut off has no hypervisor: definition.ts.
import type { VmDisk } from '../../qmp/block-graph.js';
import type { QmpConnectOptions } from '../../qmp/client.js';
import type { GroupOptions } from '../../qmp/job-group.js';
import type { JobProgress } from '../../qmp/jobs.js';
import type { Monitor } from '../../qmp/monitor.js';
import type { Reverter } from '../../reverter.js';
import type { LuksKey } from '../images/luks-key.js';
import type { PortWatch } from './agent-port.js';
import type { Overlay } from './overlay.js';
import type { StateFolder } from './state-folder.js';

/** An overlay to be merged: where it and its base are in the block graph now. */
export interface MergeLayer {
  readonly disk: { readonly base: { readonly file: string }; readonly overlay: { readonly file: string } };
  /** The VM's disk that uses the overlay. */
  readonly vmDisk: VmDisk | undefined;
  readonly overlayNode: string | undefined;
  readonly baseNode: string | undefined;
}

export interface MergeOptions {
  /** Names the merge where the hypervisor lets us: so that one that was begun is known again. */
  readonly jobId: string;
  /** How long the overlay may take to be merged, with all the guest writes meanwhile. */
  readonly limitMs: number;
  /** Bytes per second; without it, as fast as it goes. */
  readonly speed: number | undefined;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: JobProgress) => void;
  /** Called, and waited for, right before the VM is told to write to the base again. */
  readonly beforePivot: () => Promise<void>;
}

export interface OpenOptions extends QmpConnectOptions {
  /** Only questions will be asked, so that its images may be on another host. */
  readonly onlyAsked?: boolean;
}

/** A VM beside its disks. */
export interface VmDescription {
  /** The texts that define it; `name` is fit for a file. */
  readonly texts: readonly { readonly name: string; readonly what: string; readonly text: string }[];
  readonly folders: readonly StateFolder[];
}

/** One act within a cut. */
export type CutAction =
  /** The VM writes to the overlay from then on. */
  | { readonly type: 'overlay'; readonly overlay: Overlay }
  /** The disk, as it is at that instant, goes to the target; what is written from then on is recorded. */
  | { readonly type: 'backup'; readonly target: BackupTarget };

/** The questions, and the cut. */
export interface CutHost extends Monitor, AsyncDisposable {
  /**
   * True if a cut names the layers it lies on, and is refused if one is not on top any more: then it proves what lies
   * below.
   */
  readonly cutProvesBase: boolean;

  /** The VM's disks, each with the name its user knows. */
  disks(): Promise<readonly VmDisk[]>;

  /** Tells what belongs to the VM beside its disks; disks of the firmware are among `disks`. */
  describe(): Promise<VmDescription>;

  /**
   * Does it all, or nothing, at one instant, by one command. Throws what the hypervisor answers; its outcome is 'unknown'
   * if no answer came within `timeoutMs`.
   */
  cut(actions: readonly CutAction[], timeoutMs: number): Promise<void>;

  /** Returns when a cut whose answer was lost is over, well or not. Throws if that cannot be known. */
  cutIsOver(timeoutMs: number): Promise<void>;

  /** Tells when the guest's agent closes its port, where that is not seen by itself. */
  watchAgentPort(agentAddress: string): PortWatch | undefined;
}

/** The acts that make, merge and forget overlays. */
export interface OverlayHost {
  /** The overlays' nodes have the names we chose; else it names them in the cut. */
  readonly keepsNodeNames: boolean;

  /** Why it cannot lay an overlay on a disk that is sound in itself. */
  whyNoOverlay(disk: VmDisk): Promise<string | undefined>;

  /**
   * Brings the overlays, whose files are there, as near to their use as can be without using them: an encrypted one is
   * formatted here. What it does is registered with the reverter first. Gives what the overlays will lack, though they are
   * sound, in sentences. Throws a CutError that names the disk.
   */
  prepare(overlays: readonly Overlay[], reverter: Reverter, signal: AbortSignal): Promise<readonly string[]>;

  /**
   * Merges an overlay that is the VM's active layer into its base, while the guest writes on. When it returns, the VM
   * writes to the base. Throws with the VM on the overlay as before, unless `beforePivot` was called; a CutError
   * `E_MERGE_REFUSED` if nothing was begun, and the base is as it was.
   */
  merge(layer: MergeLayer, options: MergeOptions): Promise<void>;

  /** Forgets the merge, and closes the overlay, which no disk of the VM uses any more. */
  forget(overlayNode: string | undefined, jobId: string | undefined): Promise<void>;
}

/** Where a disk is backed up to, and the names that the act has in the hypervisor. */
export interface BackupTarget {
  readonly disk: VmDisk;
  /** A qcow2 image of the disk's size; there already. */
  readonly file: string;
  /** It lies in a LUKS file, which this opens; undefined if it does not. */
  readonly key: LuksKey | undefined;
  readonly node: string;
  readonly jobId: string;
  /** The checkpoint that begins with this cut; undefined where none can be kept of the disk. */
  readonly checkpoint: string | undefined;
  /** The earlier one since which the target holds what changed; without it the target holds the whole disk. */
  readonly since: string | undefined;
  /** When that one began. */
  readonly sinceTime?: Date | undefined;
  /** Bytes per second. */
  readonly speed: number | undefined;
  readonly compress: boolean;
}

/** A record of what was written to a disk since an earlier backup. */
export interface Checkpoint {
  readonly name: string;
  /** What a backup since then would copy, at most. */
  readonly dirtyBytes: number;
  /** Why it cannot be relied on, for people; undefined if it can. */
  readonly why: string | undefined;
  /** The VM's process keeps it, and no image: it is of the files that the disk was on in that process. */
  readonly ofProcess?: boolean;
}

/** Gives the bytes per second from now on, for all that is copied together, when told how many were; undefined: no limit. */
export type Pace = (current: number) => Promise<number | undefined>;

export interface TransferOptions extends GroupOptions {
  /** How long the end of the jobs may take, once everything is copied; then, how long a target may take to be flushed. */
  readonly finalizeMs: number;
  /**
   * Syncs the targets. Called, and waited for, when all is copied and no write of the guest waits for a target: before they are
   * flushed. Where they are flushed by somebody else it is called while they are written, too, and once they are.
   */
  readonly beforeFlush: () => Promise<void>;
  /** Asked if `changesRates`. */
  readonly pace?: Pace;
}

/** How long a checkpoint of a disk lasts: with its image, with the VM's process, or there can be none. */
export type CheckpointLife = 'image' | 'process' | 'none';

/** The acts that copy disks of a running VM to targets, and keep checkpoints. */
export interface BackupHost {
  /** One checkpoint is of all disks of a cut, and has one name on them all; else each disk has its own. */
  readonly checkpointsAreShared: boolean;

  /** What is zero takes no place in its targets, also where the image does not say so. */
  readonly leavesZeroesOut: boolean;

  /** The rate of what is copied can be changed while it is. */
  readonly changesRates: boolean;

  /** Why it cannot compress what it copies; undefined if it can. */
  readonly whyNoCompression: string | undefined;

  /** Why it cannot encrypt what it copies; undefined if it can. */
  readonly whyNoEncryption: string | undefined;

  /** Why it cannot back up a disk that is sound in itself. */
  whyNoBackup(disk: VmDisk): string | undefined;

  /** The checkpoints of the disk, also those that others keep. */
  checkpoints(disk: VmDisk): Promise<readonly Checkpoint[]>;

  checkpointLife(disk: VmDisk): Promise<CheckpointLife>;

  /** Throws a UsageError if another job of the VM as a whole is under way: then nothing is to be begun. */
  refuseOtherJob(): Promise<void>;

  /** Opens the targets, not yet in use. What it does is registered with the reverter first. */
  openTargets(targets: readonly BackupTarget[], reverter: Reverter): Promise<void>;

  /** The targets whose backup the hypervisor has begun. */
  begun(targets: readonly BackupTarget[]): Promise<readonly BackupTarget[]>;

  /**
   * Returns when all targets hold their disks as they were at the cut, and are flushed and closed; gives the bytes that each
   * was to be copied. Throws a BridgeError if one failed, could not be flushed or does not get on, or if a write of the guest
   * failed and the VM was paused for it; the signal's reason when aborted: then end them.
   */
  transfer(targets: readonly BackupTarget[], options: TransferOptions): Promise<readonly number[]>;

  /**
   * Ends what was begun and closes the targets, as far as any of it is there. A VM that was paused meanwhile, since a write of
   * its guest failed, is continued. `pausedBefore`, as the journal of a killed tool says: it was paused so before; undefined if
   * that is not known, or the targets were opened here. Throws if the end cannot be had.
   */
  end(targets: readonly BegunTarget[], pausedBefore?: boolean): Promise<EndedBackup>;

  /**
   * Forgets the checkpoints that are `wanted`; those kept hold all that was written. Throws for those that cannot be
   * forgotten (one is in use, say) when the others are. Where
   * somebody lists checkpoints, those that are `ours` and record nothing any more are taken from his list.
   */
  dropCheckpoints(wanted: (name: string) => boolean, ours?: (name: string) => boolean): Promise<void>;
}

/** What became of the VM; undefined if no write of its guest had failed. */
export type EndedBackup = 'continued' | 'still-paused' | undefined;

export type BegunTarget = Pick<BackupTarget, 'node' | 'jobId' | 'file'>;

export interface Hypervisor extends CutHost, OverlayHost {
  readonly backups: BackupHost;
}
