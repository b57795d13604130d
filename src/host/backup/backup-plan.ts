// Plans a backup: which disks, each since which checkpoint, and how much that is. Changes nothing.
import * as v from 'valibot';
import { throwIfInterrupted } from '../../confirm.js';
import { Deadline } from '../../deadline.js';
import { CutError, UsageError } from '../../errors.js';
import { planCreate, type CreatePlan, type PlanOptions } from '../create/create-plan.js';
import { plainNames } from '../images/plain-names.js';
import { runQemuImg } from '../images/qemu-img-task.js';
import type { VmFolder } from '../repository/layout.js';
import type { Runs } from '../repository/runs.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { diskName } from '../vm/disk-choice.js';
import type { CheckpointLife, Hypervisor } from '../vm/hypervisor.js';
import { chooseBase, isSuperfluous, type Base, type BaseOptions } from './checkpoints.js';
import type { Compression } from './compression.js';
import { inodesOf } from './inodes.js';
import { freeBytes } from './space-watch.js';

/** It reads tables alone. */
const MEASURE_LIMIT_MS = 60_000;

/** `auto`: each disk as an increment where it can be one. */
export type BackupMode = 'auto' | 'full' | 'incremental';

export interface BackupPlanOptions extends PlanOptions {
  readonly mode: BackupMode;
  /** Files that a chain may have at most. */
  readonly maxChain: number;
  readonly compression: Compression | undefined;
  readonly signal: AbortSignal;
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
 * Throws what planCreate does, a UsageError `E_NO_BASE` if an increment was asked for that cannot be had, a QuiesceError when
 * interrupted.
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
    const names = plainNames(plan.chosen);
    const isOurs = isSuperfluous(repositoryId, new Set());
    const planned: PlannedDisk[] = [];
    for (const [index, disk] of plan.chosen.entries()) {
      const checkpoints = await backups.checkpoints(disk);
      const life = await backups.checkpointLife(disk);
      const inodes = await inodesOf(disk);
      const base = await baseOf(disk, checkpoints, life, { ...options, folder, runs, inodes });
      const otherBitmaps = checkpoints.map(({ name }) => name).filter((name) => !isOurs(name));
      const bytes = base.kind === 'incremental' ? base.since.dirtyBytes : await wholeBytes(disk, options.signal);
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

async function baseOf(
  disk: VmDisk,
  checkpoints: Parameters<typeof chooseBase>[1],
  life: CheckpointLife,
  options: BaseOptions & Pick<BackupPlanOptions, 'mode'>,
): Promise<Base> {
  const { mode } = options;
  if (mode === 'full') return { kind: 'full', why: '--full was asked for' };
  const base = await chooseBase(disk, checkpoints, life, options);
  if (base.kind === 'full' && mode === 'incremental') {
    const message = `--incremental was asked for, but disk ${diskName(disk)} can only be backed up in full: ${base.why}`;
    throw new UsageError('E_NO_BASE', message);
  }
  return base;
}

const measureSchema = v.object({ required: v.pipe(v.number(), v.safeInteger()) });

/** The size that an image of the whole disk may have; the disk's own where qemu-img cannot tell. */
async function wholeBytes({ file, format, name, virtualSize }: VmDisk, signal: AbortSignal): Promise<number> {
  const image = name.startsWith('json:') ? [name] : ['-f', format, file];
  // The VM has it open: what it allocated last may be missed.
  const args = ['measure', '-U', '--output=json', '-O', 'qcow2', ...image];
  try {
    const { stdout } = await runQemuImg(args, { deadline: new Deadline(MEASURE_LIMIT_MS), signal });
    return v.parse(measureSchema, JSON.parse(stdout)).required;
  } catch {
    signal.throwIfAborted();
    return virtualSize;
  }
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

/** Throws a CutError if there is too little. */
export function checkRepositoryRoom(path: string, room: RepositoryRoom): void {
  if (room.free >= room.needed) return;
  const mib = (bytes: number): string => `${Math.floor(bytes / 1024 / 1024)} MiB`;
  const message = `no space for the backup in ${path}: ${mib(room.free)} free, expected ${mib(room.needed)}`;
  throw new CutError('E_NO_SPACE', message, { facts: { ...room } });
}
