// Recovers a backup whose tool was killed: what it began in QEMU, and the run that it did not finish. Published, the run
// stays.
import { describeError } from '../../errors.js';
import { backupJournalFile, readBackupJournal } from '../backup/backup-journal.js';
import { settleBackup, type Settled } from '../backup/settle-backup.js';
import type { RecoveryRun } from './recovery-run.js';

/** What became of it, for people. */
const settledTexts = (path: string): Readonly<Record<Settled, string>> => ({
  published: 'the run is there, and stays',
  removed: 'ended, and nothing of it is left',
  lost: `ended; its repository ${path} is not there: if it comes back, "backup recover --repo ${path}" removes the rest`,
});

/** Call it when it is known whether the VM runs. */
export async function recoverBackup(run: RecoveryRun): Promise<void> {
  const { store, monitors, options } = run;
  const journal = await readBackupJournal(store.folder);
  if (journal === undefined) return;
  if (journal.entry === undefined) {
    const file = backupJournalFile(store.folder);
    const found = `a backup was not finished, and its journal is of a format that this version does not know: ${file}`;
    const did = 'use the version that wrote it, or look at what it says and remove it';
    run.note('yours', { kind: 'backup-unfinished', found, did });
    return;
  }
  const { owner, entry } = journal;
  const { run: name, repository } = entry;
  if (owner !== 'gone') {
    const elsewhere = owner === 'elsewhere';
    const found = `a backup to ${repository.path} is being made by process ${entry.owner.pid}`;
    const did = elsewhere ? 'if it has ended, remove its journal and recover again' : 'left alone';
    run.note(elsewhere ? 'yours' : 'busy', { kind: 'backup-unfinished', found, did });
    return;
  }
  const found = `backup run ${name} to ${repository.path} was not finished`;
  const did = 'end it in QEMU, and remove what there is of it';
  const commands = [options.command('recover')];
  await run.repair({ kind: 'backup-unfinished', found, did, commands }, async () => {
    const { signal, limits } = options;
    const backups = monitors.map((monitor) => monitor.backups);
    const settle = { backups: backups[0], waitMs: limits.lockWaitMs, signal };
    try {
      const settled = await settleBackup(store.folder, entry, settle);
      return settledTexts(repository.path)[settled];
    } catch (error) {
      throw new Error(`not all of it could be undone: ${describeError(error)}`, { cause: error });
    }
  });
}
