// Makes sure that a new repository is wanted, before one is made.
import { UsageError } from '../../errors.js';
import type { BackupHost, Hypervisor } from '../vm/hypervisor.js';
import type { BackupOptions } from './backup-at.js';
import { repositoryOf } from './checkpoints.js';

/**
 * Call it where there is no repository yet. Throws a UsageError `E_REPOSITORY` if the VM is backed up to another one, unless
 * `init` says that a second one is wanted: an empty folder is more likely one on which nothing is mounted, and its
 * filesystem the host's own.
 */
export async function refuseSecond(
  { repository, init }: Pick<BackupOptions, 'repository' | 'init'>,
  hypervisor: Hypervisor,
  backups: BackupHost,
): Promise<void> {
  if (init) return;
  for (const disk of await hypervisor.disks()) {
    if (backups.whyNoBackup(disk) !== undefined) continue;
    const [other] = (await backups.checkpoints(disk)).flatMap(({ name }) => repositoryOf(name) ?? []);
    if (other === undefined) continue;
    const message = `${repository} is no repository yet, and the VM is backed up to another one (${other})`;
    throw new UsageError('E_REPOSITORY', `${message}: mount it if it is to be there; --init makes a second one`);
  }
}
