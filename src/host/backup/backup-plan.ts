// Plans a backup: which disks, each since which checkpoint, and how much that is. Changes nothing.
import { throwIfInterrupted } from '../../confirm.js';
import { CutError, UsageError } from '../../errors.js';
import { planCreate, type CreatePlan, type PlanOptions } from '../create/create-plan.js';
import { plainNames } from '../images/plain-names.js';
import type { VmFolder } from '../repository/layout.js';
import type { Runs } from '../repository/runs.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { diskName } from '../vm/disk-choice.js';
import type { Checkpoint, CheckpointLife, Hypervisor } from '../vm/hypervisor.js';
import { chooseBase, isSuperfluous, type Base, type BaseOptions } from './checkpoints.js';
import type { Compression } from './compression.js';
import { checkEncryption, type EncryptionAsked } from './encryption.js';
import { inodesOf } from './inodes.js';
import { freeBytes } from './space-watch.js';
import { changedBytes, wholeBytes } from './whole-bytes.js';

/** `auto`: each disk as an increment where it can be one. */
export type BackupMode = 'auto' | 'full' | 'incremental';

export interface BackupPlanOptions extends PlanOptions, EncryptionAsked {
  readonly mode: BackupMode;
  /** Files that a chain may have at most. */
  readonly maxChain: number;
  readonly compression: Compression | undefined;
}

export interface PlannedDisk {
  readonly disk: VmDisk;
  /** Of its file, without an ending. */
  readonly name: string;
  readonly base: Base;
  /** What will be copied at most (bytes), as far as that can be known before. */
  readonly bytes: number;
  readonly otherBitmaps: readonly string[];
  /** Of its image, and of those that it lies on. */
  readonly inodes: readonly string[];
  /** What is written to it from the cut on can be recorded. */
  readonly hasCheckpoint: boolean;
}

export interface BackupPlan extends CreatePlan {
  readonly planned: readonly PlannedDisk[];
}

/**
 * Throws what planCreate does, a UsageError `E_NO_BASE` if an increment was asked for that cannot be had or what
 * checkEncryption does, a QuiesceError when interrupted.
 */
export async function planBackup(
  hypervisor: Hypervisor,
  repositoryId: string,
  folder: VmFolder,
  runs: Runs,
  options: BackupPlanOptions,
): Promise<BackupPlan> {
  const { backups } = hypervisor;
  if (options.compression !== undefined && backups.whyNoCompression !== undefined) {
    throw new UsageError('E_USAGE', `--compress ${options.compression}: ${backups.whyNoCompression}`);
  }
  const plan = await planCreate(hypervisor, options, (disk) => Promise.resolve(backups.whyNoBackup(disk)));
  try {
    await checkEncryption(backups, folder, runs, plan.chosen, options);
    const names = plainNames(plan.chosen);
    const isOurs = isSuperfluous(repositoryId, new Set());
    const planned: PlannedDisk[] = [];
    for (const [index, disk] of plan.chosen.entries()) {
      const checkpoints = trusted(disk, await backups.checkpoints(disk));
      const life = await backups.checkpointLife(disk);
      const inodes = await inodesOf(disk);
      const base = await baseOf(disk, checkpoints, life, { ...options, folder, runs, inodes });
      const otherBitmaps = checkpoints.map(({ name }) => name).filter((name) => !isOurs(name));
      const bytes = await bytesToCopy(disk, base, backups.leavesZeroesOut, options.signal);
      planned.push({
        disk,
        name: names[index] ?? `disk${index}`,
        base,
        bytes,
        otherBitmaps,
        inodes,
        hasCheckpoint: life !== 'none',
      });
    }
    return { ...plan, planned };
  } catch (error) {
    await plan.agent?.[Symbol.asyncDispose]();
    throwIfInterrupted(options.signal, 'nothing was backed up');
    throw error;
  }
}

const IN_A_RAW_FILE =
  'its data lies in a raw file, and what is written to that past its image is in no bitmap that the image keeps';

/** Those of a disk whose data lies in another file than its image are only as good as the process that keeps them. */
function trusted({ dataFiles }: VmDisk, checkpoints: readonly Checkpoint[]): readonly Checkpoint[] {
  if (dataFiles.length === 0) return checkpoints;
  return checkpoints.map((each) => (each.ofProcess === true ? each : { ...each, why: each.why ?? IN_A_RAW_FILE }));
}

async function baseOf(
  disk: VmDisk,
  checkpoints: Parameters<typeof chooseBase>[1],
  life: CheckpointLife,
  options: BaseOptions & Pick<BackupPlanOptions, 'mode'>,
): Promise<Base> {
  const { mode, isNewKey } = options;
  if (isNewKey === true) return { kind: 'full', why: '--new-key was given' };
  if (mode === 'full') return { kind: 'full', why: '--full was asked for' };
  const base = await chooseBase(disk, checkpoints, life, options);
  if (base.kind === 'full' && mode === 'incremental') {
    const message = `--incremental was asked for, but disk ${diskName(disk)} can only be backed up in full: ${base.why}`;
    throw new UsageError('E_NO_BASE', message);
  }
  return base;
}

/** More than so much that changed is compared with what is there (bytes): that takes a moment. */
const MUCH_BYTES = 128 * 1024 * 1024;

async function bytesToCopy(disk: VmDisk, base: Base, leavesZeroesOut: boolean, signal: AbortSignal): Promise<number> {
  if (base.kind === 'full') return await wholeBytes(disk, leavesZeroesOut, signal);
  const { dirtyBytes: changed } = base.since;
  // What was discarded has changed, and is not copied: a trim of the whole disk marks all that is free.
  return changed <= MUCH_BYTES ? changed : await changedBytes(disk, changed, leavesZeroesOut, signal);
}

interface RoomOptions extends Pick<BackupPlanOptions, 'compression'> {
  /** What must stay free at the end. */
  readonly minFreeBytes: number;
  readonly onProgress: (text: string) => void;
}

export interface RepositoryRoom {
  /** Bytes. */
  readonly free: number;
  readonly needed: number;
}

/** `path` is there. */
export async function readRepositoryRoom(
  path: string,
  planned: readonly PlannedDisk[],
  minFreeBytes: number,
): Promise<RepositoryRoom> {
  return { free: await freeBytes(path), needed: planned.reduce((sum, { bytes }) => sum + bytes, minFreeBytes) };
}

/**
 * Throws a CutError if there is too little. What will be compressed may need less than is known: only what is to stay free
 * is expected then, and the rest is told of.
 */
export function checkRepositoryRoom(
  path: string,
  room: RepositoryRoom,
  { compression, minFreeBytes, onProgress }: RoomOptions,
): void {
  if (room.free >= room.needed) return;
  const mib = (bytes: number): string => `${Math.floor(bytes / 1024 / 1024)} MiB`;
  if (compression !== undefined && room.free >= minFreeBytes) {
    onProgress(
      `${mib(room.free)} free in ${path}: enough if it compresses well, uncompressed it is ${mib(room.needed)}`,
    );
    return;
  }
  const message = `no space for the backup in ${path}: ${mib(room.free)} free, expected ${mib(room.needed)}`;
  throw new CutError('E_NO_SPACE', message, { facts: { ...room } });
}
