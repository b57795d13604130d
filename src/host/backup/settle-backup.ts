// Settles what a backup left whose tool was killed: published, it stays as it is; else its jobs are ended, its targets
// closed, its checkpoint forgotten and its draft removed. Nothing else is lost: the checkpoints before it went on
// recording.
import { UsageError } from '../../errors.js';
import { exists } from '../images/durable-file.js';
import { draftRun, VmFolder } from '../repository/layout.js';
import { lockForChange } from '../repository/repository-lock.js';
import { openRepository, type Repository } from '../repository/repository.js';
import { leftFolders, removeLeft } from '../repository/run-draft.js';
import type { BackupHost } from '../vm/hypervisor.js';
import { removeJournal } from '../sets/journal.js';
import { backupJournalFile, type BackupEntry } from './backup-journal.js';
import { dropCheckpointsOf } from './checkpoints.js';
import { checkContinued } from './paused-vm.js';

export interface SettleOptions {
  /** Undefined if the VM is shut off: then nothing of it is in QEMU. */
  readonly backups: BackupHost | undefined;
  readonly waitMs: number;
  readonly signal: AbortSignal;
}

/** What became of the run. `lost`: its repository is not there, so that a draft may be left in it. */
export type Settled = 'published' | 'removed' | 'lost';

/**
 * Settles it, and ends its journal. Without its repository (lost, not mounted, another one by now) what is in QEMU is ended,
 * and its checkpoint forgotten: those before it go on recording. Throws what keeps it from that, with the journal still
 * there: a UsageError if somebody works on the repository, or if it is not there and the VM is shut off. A BridgeError if
 * the VM stays paused: then all is settled.
 */
export async function settleBackup(vmFolder: string, entry: BackupEntry, options: SettleOptions): Promise<Settled> {
  const { backups, waitMs, signal } = options;
  const { targets, key, run, pausedBefore } = entry;
  const vm = await backups?.end(targets, pausedBefore);
  let repository: Repository;
  try {
    repository = await repositoryOf(entry);
  } catch (error) {
    if (backups === undefined || !(error instanceof UsageError && error.code === 'E_REPOSITORY')) throw error;
    await dropCheckpointsOf(backups, targets);
    await removeJournal(backupJournalFile(vmFolder));
    checkContinued(vm, () => undefined);
    return 'lost';
  }
  const folder = new VmFolder(repository.path, key);
  const isPublished = await exists(folder.run(run));
  if (!isPublished) {
    if (backups !== undefined) await dropCheckpointsOf(backups, targets);
    await using lock = await lockForChange(repository, key, { operation: 'recover', waitMs, signal });
    const left = (await leftFolders(folder)).filter((name) => draftRun(name) === run);
    await lock.check();
    await removeLeft(folder, left);
  }
  await removeJournal(backupJournalFile(vmFolder));
  checkContinued(vm, () => undefined);
  return isPublished ? 'published' : 'removed';
}

async function repositoryOf({ repository: { path, id }, run }: BackupEntry): Promise<Repository> {
  const repository = await openRepository(path);
  if (repository.id === id) return repository;
  throw new UsageError(
    'E_REPOSITORY',
    `${path} is another repository (${repository.id}) than run ${run} went to (${id})`,
  );
}
