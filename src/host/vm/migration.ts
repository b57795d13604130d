// Refuses a VM that is on its way to another machine, or to a file. Its images belong to whoever takes it over: nothing
// may be cut or merged, since what the source writes after a merge would be lost there.
import { CutError } from '../../errors.js';
import { runQmp } from '../../qmp/commands.js';
import type { Monitor } from '../../qmp/monitor.js';

/** Run states in which the images belong to somebody else, or soon will. */
const untouchable = ['inmigrate', 'postmigrate', 'finish-migrate', 'save-vm', 'restore-vm', 'colo'];

/** MigrationStatus of what is over (QEMU qapi/migration.json). */
const noMigration = ['none', 'completed', 'failed', 'cancelled'];

/**
 * Throws a CutError, `E_VM_STATE`, that says `consequence`: what was asked for was right, and may be asked again when the
 * VM has arrived.
 */
export async function refuseMigration(monitor: Monitor, consequence: string): Promise<void> {
  const { status: runState } = await runQmp(monitor, 'query-status', {});
  if (untouchable.includes(runState)) {
    throw new CutError('E_VM_STATE', `the VM is in state ${runState}: ${consequence}`);
  }
  const { status = 'none' } = await runQmp(monitor, 'query-migrate', {});
  if (noMigration.includes(status)) return;
  throw new CutError('E_VM_STATE', `the VM is being migrated or saved (${status}): ${consequence}`);
}
