// `backup run --dry-run`: tells what a backup would copy, and why. Looks where it looks, and changes neither disks nor
// repository. A VM that is shut off is locked meanwhile.
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { VmFolder } from '../repository/layout.js';
import { openIfThere } from '../repository/repository.js';
import { readRuns, type Runs } from '../repository/runs.js';
import type { LeftOut } from '../vm/disk-choice.js';
import { identityKey } from '../vm/identity.js';
import type { BackupOptions } from './backup-at.js';
import { planBackup, readRepositoryRoom, type RepositoryRoom } from './backup-plan.js';
import { openToLook, shutOffOptions, shutOffPlan } from './open-for-backup.js';
import { refuseSecond } from './second-repository.js';

export interface BackupDryRun {
  readonly vm: string;
  readonly disks: readonly {
    readonly id: string;
    readonly file: string;
    readonly kind: 'full' | 'incremental';
    readonly why: string;
    /** The run it would lie on. */
    readonly base?: string;
    /** At most. */
    readonly bytes: number;
    readonly isEncrypted: boolean;
    readonly otherBitmaps: readonly string[];
  }[];
  readonly leftOut: readonly LeftOut[];
  /** Undefined as long as there is no folder. */
  readonly room?: RepositoryRoom;
}

/** Throws what backupVm throws before it does anything. */
export async function dryRunBackup(options: BackupOptions): Promise<BackupDryRun> {
  const repository = await openIfThere(options.repository);
  await using open = await openToLook(options, repository);
  const { hypervisor, identity } = open;
  if (repository === undefined) await refuseSecond(options, hypervisor, hypervisor.backups);
  const folder = new VmFolder(options.repository, identityKey(identity));
  const none: Runs = { all: [], forgotten: new Set(), unreadable: [] };
  const runs = repository === undefined ? none : await readRuns(folder);
  if (repository === undefined && options.mode === 'incremental') {
    throw new UsageError('E_NO_BASE', `--incremental: ${options.repository} is no repository yet`);
  }
  const asked = 'drives' in open ? shutOffOptions(options, open) : options;
  const lenient = { ...asked, requirement: { asked: 'crash', allowLower: true } } as const;
  const found = await planBackup(hypervisor, repository?.id ?? '', folder, runs, lenient);
  const plan = 'drives' in open ? shutOffPlan(found, open) : found;
  try {
    const { planned, leftOut } = plan;
    const room =
      repository === undefined
        ? undefined
        : await readRepositoryRoom(options.repository, planned, options.minFreeBytes);
    return {
      vm: options.vm.name,
      disks: planned.map(({ disk, base, bytes, otherBitmaps }) => ({
        id: disk.id,
        file: disk.file,
        kind: base.kind,
        why: base.why,
        ...(base.kind === 'full' ? {} : { base: base.manifest.run }),
        bytes,
        isEncrypted: options.encrypt !== undefined && options.encrypt !== false,
        otherBitmaps,
      })),
      leftOut,
      ...defined({ room }),
    };
  } finally {
    await plan.agent?.[Symbol.asyncDispose]();
  }
}
