// Tells of a restore in place whose tool was killed. Before it wrote to an image nothing was changed, and its drafts go;
// after that only the rest of it makes the images one state again, and whether they are to be that is for a person to say.
import { forgetRestore, readRestoreJournal } from '../sets/restore-journal.js';
import type { RecoveryRun } from './recovery-run.js';

export async function recoverRestore(run: RecoveryRun): Promise<void> {
  const { store, options } = run;
  const there = await readRestoreJournal(store.folder);
  if (there?.entry === undefined) return;
  const { repository, run: name, disks, writes } = there.entry;
  if (there.owner !== 'gone') {
    const found = `run ${name} is being restored by process ${there.entry.owner.pid}`;
    const elsewhere = there.owner === 'elsewhere';
    const did = elsewhere ? 'if it has ended, remove its journal and recover again' : 'left alone';
    run.note(elsewhere ? 'yours' : 'busy', { kind: 'restore-unfinished', found, did });
    return;
  }
  const commands = [options.command('backup', 'restore', name, '--in-place', '--repo', repository)];
  if (!writes) {
    const found = `a restore of run ${name} in place was not begun in earnest: no image was written to`;
    await run.repair({ kind: 'restore-unfinished', found, did: 'remove its drafts', commands }, async () => {
      await forgetRestore(store.folder);
      return undefined;
    });
    return;
  }
  const images = disks.map(({ image }) => image).join(', ');
  const found = `run ${name} was restored only in part: ${images} hold two instants`;
  const did = 'do not start the VM from them, and restore in place again: this run or another one';
  run.note('yours', { kind: 'restore-unfinished', found, did, commands });
}
