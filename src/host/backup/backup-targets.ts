// Makes the files that a backup goes to, in the draft of its run, and names what the act has in the hypervisor.
import { chmod, chown, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { defined } from '../../defined.js';
import { makeImage } from '../images/image-file.js';
import { reserveSpace } from '../images/reserve.js';
import { backingName } from '../repository/chain.js';
import type { BackupTarget } from '../vm/hypervisor.js';
import type { PlannedDisk } from './backup-plan.js';
import { checkpointName } from './checkpoints.js';

export const compressions = ['zlib', 'zstd'] as const;
export type Compression = (typeof compressions)[number];

export interface TargetOptions {
  readonly repositoryId: string;
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
  const { repositoryId, run, id, path, speed, compression } = options;
  return planned.map((each, index) => ({
    planned: each,
    disk: each.disk,
    file: join(path, `${each.name}.qcow2`),
    node: `fsb-to-${id}-${index}`,
    jobId: `fsb-backup-${id}-${index}`,
    checkpoint: checkpointName(repositoryId, run, index),
    since: each.base.kind === 'incremental' ? each.base.since.name : undefined,
    speed: speed === undefined ? undefined : Math.max(1, Math.floor(speed / planned.length)),
    compress: compression !== undefined,
  }));
}

/** Tables of a small image; those of a larger one are less than what is taken for the data, which is never all written. */
const METADATA_BYTES = 2 * 1024 * 1024;

/** Throws a CutError, and what the filesystem throws. */
export async function makeTargets(
  targets: readonly PlannedTarget[],
  compression: Compression | undefined,
): Promise<void> {
  for (const { planned, disk, file } of targets) {
    const { base } = planned;
    // Nobody but QEMU's user and root reads what is in a guest's disks.
    await (await open(file, 'wx', 0o600)).close();
    const backing =
      base.kind === 'full' ? undefined : { name: backingName(base.manifest.run, base.file.file.name), format: 'qcow2' };
    await makeImage({
      file,
      virtualSize: disk.virtualSize,
      compression: compression ?? 'zlib',
      ...defined({ backing }),
    });
    await likeImage(file, disk.file);
    // The guest's own writes wait for their copies here, and fail where those do. What is compressed needs less.
    if (compression === undefined) await reserveSpace(file, planned.bytes + METADATA_BYTES);
  }
}

// QEMU may run as a user of its own, to whom the disk's image belongs.
async function likeImage(file: string, image: string): Promise<void> {
  const { uid, gid } = await stat(image);
  const own = await stat(file);
  if (own.uid !== uid || own.gid !== gid) await chown(file, uid, gid);
  await chmod(file, 0o600);
}
