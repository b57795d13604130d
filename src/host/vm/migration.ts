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
 * True if this QEMU has sent the VM elsewhere, or to a file, and goes on with it all the same: who took it over may have
 * written to its images. Only the last one is known of: one that failed, or was given up, may have followed another, or
 * have been taken over at its very end. Where the VM came to, nothing tells of its memory.
 */
export async function wentOnAfterMigration(monitor: Monitor): Promise<boolean> {
  const { status, ram } = await runQmp(monitor, 'query-migrate', {});
  return status !== undefined && status !== 'none' && ram !== undefined;
}

/** True if a migration sends dirty bitmaps along: then those of images are not stored there, and not read again. */
export async function sendsBitmaps(monitor: Monitor): Promise<boolean> {
  const capabilities = await runQmp(monitor, 'query-migrate-capabilities', {});
  return capabilities.some(({ capability, state }) => capability === 'dirty-bitmaps' && state);
}

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
