// Tells of a restore in place whose tool was killed. Before it wrote to an image nothing was changed, and its drafts go;
// an image that it wrote to in part is made one state again only by the same or another restore, and which is for a person
// to say.
import { readRestoreJournal, RestoreJournal, restoreJournalFile } from '../sets/restore-journal.js';
import type { RecoveryRun } from './recovery-run.js';

export async function recoverRestore(run: RecoveryRun): Promise<void> {
  const { store, options } = run;
  const there = await readRestoreJournal(store.folder);
  if (there === undefined) return;
  if (there.entry === undefined) {
    const file = restoreJournalFile(store.folder);
    const found = `a restore in place was not finished, and its journal is of a format that this version does not know: ${file}`;
    const did = 'do not start the VM: use the version that wrote it, or look at what it says and remove it';
    run.note('yours', { kind: 'restore-unfinished', found, did });
    return;
  }
  // Nobody is at it: the VM's lock is ours.
  const { partial, drafts } = there.entry;
  if (drafts.length > 0) {
    const found = `a restore in place was not finished: ${drafts.join(', ')}`;
    await run.repair({ kind: 'restore-unfinished', found, did: 'remove what it had found to differ' }, async () => {
      const journal = await RestoreJournal.open(store.folder);
      await journal[Symbol.asyncDispose]();
      return undefined;
    });
  }
  for (const { image, run: name, repository } of partial) {
    const found = `${image} holds two instants: run ${name} was restored only in part`;
    const file = restoreJournalFile(store.folder);
    const did = `do not start the VM from it: restore this run or another one in place (if you replaced the image, remove ${file})`;
    const commands = [options.command('backup', 'restore', name, '--in-place', '--repo', repository)];
    run.note('yours', { kind: 'restore-unfinished', found, did, commands });
  }
}
