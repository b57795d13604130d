// Makes the files that a backup goes to, in the draft of its run, and names what the act has in the hypervisor.
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { defined } from '../../defined.js';
import { makeImage } from '../images/image-file.js';
import { LUKS_HEADER_BYTES, writeLuks } from '../images/luks-file.js';
import type { LuksKey } from '../images/luks-key.js';
import { reserveSpace } from '../images/reserve.js';
import { backingName } from '../repository/chain.js';
import { diskFileName } from '../repository/layout.js';
import type { BackupTarget } from '../vm/hypervisor.js';
import { shareOf } from '../vm/job-rates.js';
import type { PlannedDisk } from './backup-plan.js';
import { checkpointName } from './checkpoints.js';
import type { Compression } from './compression.js';
import type { HeldFiles } from './held-files.js';
import { likeImage } from './like-image.js';
import type { RepositoryWait } from './repository-wait.js';

export interface TargetOptions {
  readonly repositoryId: string;
  /** All disks have one checkpoint. */
  readonly sharedCheckpoint: boolean;
  readonly run: string;
  /** Eight hexadecimal digits: names in the hypervisor are short. */
  readonly id: string;
  /** The draft's folder. */
  readonly path: string;
  readonly compression: Compression | undefined;
  readonly encrypt: LuksKey | undefined;
}

export interface PlannedTarget extends BackupTarget {
  readonly planned: PlannedDisk;
}

/** None has a rate yet. */
export function targetsOf(planned: readonly PlannedDisk[], options: TargetOptions): PlannedTarget[] {
  const { repositoryId, sharedCheckpoint, run, id, path, compression, encrypt: key } = options;
  return planned.map((each, index) => ({
    planned: each,
    disk: each.disk,
    file: join(path, diskFileName(each.name, key !== undefined)),
    key,
    node: `fsb-to-${id}-${index}`,
    jobId: `fsb-backup-${id}-${index}`,
    checkpoint: each.hasCheckpoint
      ? checkpointName(repositoryId, run, sharedCheckpoint ? undefined : index)
      : undefined,
    ...(each.base.kind === 'incremental'
      ? { since: each.base.since.name, sinceTime: new Date(each.base.manifest.createdAt) }
      : { since: undefined }),
    speed: undefined,
    compress: compression !== undefined,
  }));
}

/** `rate`: bytes per second, for all of them together. */
export function atRate(targets: readonly PlannedTarget[], rate: number | undefined): PlannedTarget[] {
  const speed = rate === undefined ? undefined : shareOf(rate, targets.length);
  return targets.map((target) => ({ ...target, speed }));
}

const CLUSTER_BYTES = 65_536;
/** What one table of a qcow2 image with such clusters tells of: of the disk, and (with 16 bits each) of the file. */
const L2_REACH_BYTES = 512 * 1024 * 1024;
const REFCOUNT_REACH_BYTES = 2 * 1024 * 1024 * 1024;
/** Header, L1 and refcount tables, and whatever is rounded up. */
const FIXED_BYTES = 2 * 1024 * 1024;

/** The space that so many bytes of a disk may take as a qcow2 image, however they are scattered. */
export function imageBytes(bytes: number, virtualSize: number): number {
  const tables = Math.min(Math.ceil(bytes / CLUSTER_BYTES), Math.ceil(virtualSize / L2_REACH_BYTES));
  const refcounts = Math.ceil(bytes / REFCOUNT_REACH_BYTES);
  return bytes + (tables + refcounts) * CLUSTER_BYTES + FIXED_BYTES;
}

export interface MadeTargets {
  /** Files whose space could not be taken. */
  readonly notReserved: readonly string[];
  /** Files that QEMU may not be allowed to open, and why, for people. */
  readonly notOwned: readonly string[];
}

/** Makes the files, and holds them. Throws a CutError, what RepositoryWait does, and what the filesystem throws. */
export async function makeTargets(
  targets: readonly PlannedTarget[],
  compression: Compression | undefined,
  files: HeldFiles,
  wait: RepositoryWait,
): Promise<MadeTargets> {
  const notReserved: string[] = [];
  const notOwned: string[] = [];
  for (const target of targets) {
    const { file } = target;
    const made = await wait.for(`making ${file}`, () => makeTarget(target, compression, files));
    if (!made.isReserved) notReserved.push(file);
    if (made.notOwned !== undefined) notOwned.push(made.notOwned);
  }
  return { notReserved, notOwned };
}

async function makeTarget(
  { planned, disk, file, key }: PlannedTarget,
  compression: Compression | undefined,
  files: HeldFiles,
): Promise<{ readonly isReserved: boolean; readonly notOwned: string | undefined }> {
  const { base } = planned;
  // Nobody else reads what is in a guest's disks, from the first byte on.
  const handle = await open(file, 'wx', 0o600);
  files.hold(file, handle);
  const backing =
    base.kind === 'full' ? undefined : { name: backingName(base.manifest.run, base.file.file), format: 'qcow2' };
  await makeImage({
    file,
    virtualSize: disk.virtualSize,
    compression: compression ?? 'zlib',
    tellsOfLostTables: true,
    ...defined({ backing }),
  });
  // It is empty: QEMU writes the disk into it.
  if (key !== undefined) await writeLuks(handle, key, await readFile(file));
  const notOwned = await likeImage(handle, file, disk.file);
  // The guest's own writes wait for their copies here, and fail where those do. What is compressed needs less.
  if (compression !== undefined) return { isReserved: true, notOwned };
  const bytes = imageBytes(planned.bytes, disk.virtualSize) + (key === undefined ? 0 : LUKS_HEADER_BYTES);
  return { isReserved: await reserveSpace(file, bytes), notOwned };
}
