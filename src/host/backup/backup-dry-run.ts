// `backup run --dry-run`: tells what a backup would copy, and why. Looks where it looks, and changes nothing.
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { VmFolder } from '../repository/layout.js';
import { openIfThere } from '../repository/repository.js';
import { readRuns, type Runs } from '../repository/runs.js';
import { identifyOpen } from '../sets/find-vm.js';
import type { LeftOut } from '../vm/disk-choice.js';
import { identityKey } from '../vm/identity.js';
import { openHypervisor } from '../vm/open-hypervisor.js';
import type { BackupOptions } from './backup-at.js';
import { planBackup, readRepositoryRoom, type RepositoryRoom } from './backup-plan.js';
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
    readonly otherBitmaps: readonly string[];
  }[];
  readonly leftOut: readonly LeftOut[];
  /** Undefined as long as there is no folder. */
  readonly room?: RepositoryRoom;
}

/** Throws what backupVm throws before it does anything. */
export async function dryRunBackup(options: BackupOptions): Promise<BackupDryRun> {
  await using hypervisor = await openHypervisor(options.vm.monitor, { timeoutMs: options.monitorTimeoutMs });
  const identity = await identifyOpen(hypervisor, options.vm);
  const repository = await openIfThere(options.repository);
  if (repository === undefined) await refuseSecond(options, hypervisor, hypervisor.backups);
  const folder = new VmFolder(options.repository, identityKey(identity));
  const none: Runs = { all: [], forgotten: new Set(), unreadable: [] };
  const runs = repository === undefined ? none : await readRuns(folder);
  if (repository === undefined && options.mode === 'incremental') {
    throw new UsageError('E_NO_BASE', `--incremental: ${options.repository} is no repository yet`);
  }
  const lenient = { ...options, requirement: { asked: 'crash', allowLower: true } } as const;
  const plan = await planBackup(hypervisor, repository?.id ?? '', folder, runs, lenient);
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
        otherBitmaps,
      })),
      leftOut,
      ...defined({ room }),
    };
  } finally {
    await plan.agent?.[Symbol.asyncDispose]();
  }
}
