// Recovers reverts that ended half-way: removes their drafts, or puts them in place.
import { BridgeError } from '../../errors.js';
import { exists, removeFiles } from '../images/durable-file.js';
import { holdsData, withData } from '../images/overlay-data.js';
import { overlayFiles, type Manifest } from '../sets/manifest.js';
import { newerSets } from '../sets/set-state.js';
import { draftOf, takeDrafts } from '../snapshot-revert.js';
import { checkRemovable, heldFile, noteMissing, withJournal } from './recover-files.js';
import { allManifests } from './recover-targets.js';
import type { RecoveryRun } from './recovery-run.js';

// Removes drafts that were made, but not used before the tool was killed: the set was not changed.
export async function removeRevertDrafts(run: RecoveryRun, manifest: Manifest): Promise<void> {
  const drafts: string[] = [];
  for (const { overlay } of manifest.disks) if (await exists(draftOf(overlay.file))) drafts.push(draftOf(overlay.file));
  if (drafts.length === 0) return;
  const found = `a revert of set ${manifest.set} ended before it changed anything`;
  const did = `remove its empty drafts (${drafts.join(', ')})`;
  await run.repair({ set: manifest.set, kind: 'set-revert', found, did }, async () => {
    await withJournal(run, manifest.set, async () => {
      await checkRemovable(run, manifest, drafts);
      const [written] = await withData(drafts);
      if (written !== undefined) throw new BridgeError('E_DATA', `${written} holds data: not removed`);
      await removeFiles(drafts);
    });
    return undefined;
  });
}

export async function recoverRevert(run: RecoveryRun, manifest: Manifest): Promise<void> {
  const { options, store, isRunning } = run;
  const { set, disks } = manifest;
  const found = `set ${set} is reverted in part: some of its disks are at the cut, others are not`;
  const commands = [options.command('snapshot', 'revert', set)];
  const tell = (did: string): void => {
    run.note('yours', { set, kind: 'set-revert', found, did, commands });
  };
  if (isRunning) {
    tell('shut the VM off, and revert again');
    return;
  }
  const drafts: string[] = [];
  for (const { overlay } of disks) {
    if (await exists(draftOf(overlay.file))) drafts.push(overlay.file);
    else if (!(await exists(overlay.file))) {
      noteMissing(run, manifest, [overlay.file]);
      return;
    }
    // Emptied before, so a VM was started from it since.
    else if (await holdsData(overlay.file)) {
      tell(`${overlay.file} was emptied and written to since: if what was written may be lost, revert again`);
      return;
    }
  }
  await run.repair({ set, kind: 'set-revert', found, did: 'revert the rest', commands }, async () => {
    await withJournal(run, set, async () => {
      const why = await heldFile(
        run,
        manifest,
        disks.map(({ overlay }) => overlay.file),
      );
      if (why !== undefined) throw new BridgeError('E_IN_USE', `${why}: not reverted`);
      const above = await newerSets(manifest, await allManifests(options.stateDir));
      if (above.length > 0) throw new BridgeError('E_NEWER_SETS', `newer sets lie on ${set}: ${above.join(', ')}`);
      await takeDrafts(store, manifest, drafts);
    });
    return `reverted; start the VM from ${overlayFiles(manifest)}`;
  });
}
