// Makes the files that a backup goes to, in the draft of its run, and names what the act has in the hypervisor.
import { open, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { defined } from '../../defined.js';
import { makeImage } from '../images/image-file.js';
import { reserveSpace } from '../images/reserve.js';
import { backingName } from '../repository/chain.js';
import type { BackupTarget } from '../vm/hypervisor.js';
import type { PlannedDisk } from './backup-plan.js';
import { checkpointName } from './checkpoints.js';
import type { Compression } from './compression.js';
import type { HeldFiles } from './held-files.js';

export interface TargetOptions {
  readonly repositoryId: string;
  /** All disks have one checkpoint. */
  readonly sharedCheckpoint: boolean;
  readonly run: string;
  /** Eight hexadecimal digits: names in the hypervisor are short. */
  readonly id: string;
  /** The draft's folder. */
  readonly path: string;
  /** Bytes per second, for all disks together. */
  readonly speed: number | undefined;
  readonly compression: Compression | undefined;
}

export interface PlannedTarget extends BackupTarget {
  readonly planned: PlannedDisk;
}

export function targetsOf(planned: readonly PlannedDisk[], options: TargetOptions): PlannedTarget[] {
  const { repositoryId, sharedCheckpoint, run, id, path, speed, compression } = options;
  return planned.map((each, index) => ({
    planned: each,
    disk: each.disk,
    file: join(path, `${each.name}.qcow2`),
    node: `fsb-to-${id}-${index}`,
    jobId: `fsb-backup-${id}-${index}`,
    checkpoint: each.hasCheckpoint
      ? checkpointName(repositoryId, run, sharedCheckpoint ? undefined : index)
      : undefined,
    ...(each.base.kind === 'incremental'
      ? { since: each.base.since.name, sinceTime: new Date(each.base.manifest.createdAt) }
      : { since: undefined }),
    speed: speed === undefined ? undefined : Math.max(1, Math.floor(speed / planned.length)),
    compress: compression !== undefined,
  }));
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

/**
 * Makes the files, and holds them. Gives those whose space could not be taken. Throws a CutError, and what the filesystem
 * throws.
 */
export async function makeTargets(
  targets: readonly PlannedTarget[],
  compression: Compression | undefined,
  files: HeldFiles,
): Promise<string[]> {
  const notReserved: string[] = [];
  for (const { planned, disk, file } of targets) {
    const { base } = planned;
    // Nobody but QEMU's user and root reads what is in a guest's disks.
    const handle = await open(file, 'wx', 0o600);
    files.hold(file, handle);
    const backing =
      base.kind === 'full' ? undefined : { name: backingName(base.manifest.run, base.file.file.name), format: 'qcow2' };
    await makeImage({
      file,
      virtualSize: disk.virtualSize,
      compression: compression ?? 'zlib',
      tellsOfLostTables: true,
      ...defined({ backing }),
    });
    await likeImage(handle, disk.file);
    // The guest's own writes wait for their copies here, and fail where those do. What is compressed needs less.
    if (compression !== undefined) continue;
    if (!(await reserveSpace(file, imageBytes(planned.bytes, disk.virtualSize)))) notReserved.push(file);
  }
  return notReserved;
}

// QEMU may run as a user of its own, to whom the disk's image belongs.
async function likeImage(handle: FileHandle, image: string): Promise<void> {
  const { uid, gid } = await stat(image);
  const own = await handle.stat();
  if (own.uid !== uid || own.gid !== gid) await handle.chown(uid, gid);
  await handle.chmod(0o600);
}
