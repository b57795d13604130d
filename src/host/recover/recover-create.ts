// Recovers sets that were never finished: recorded as cut if the VM says so, else rolled back. Sets that are half
// deleted are deleted.
import { BridgeError } from '../../errors.js';
import { withData } from '../images/overlay-data.js';
import { overlayFiles, type Manifest } from '../sets/manifest.js';
import { recordOf, viewSet } from '../sets/set-view.js';
import { missingOverlays } from '../sets/missing-images.js';
import { overlaysThere } from '../sets/own-overlays.js';
import { removeSet, unloadOverlays } from '../snapshot-delete.js';
import { checkRemovable, heldFile, noteMissing, withJournal } from './recover-files.js';
import { allManifests } from './recover-targets.js';
import type { RecoveryRun } from './recovery-run.js';

export async function recoverCreate(run: RecoveryRun, manifest: Manifest): Promise<void> {
  const { store, monitors, isRunning, options } = run;
  const { set, state } = manifest;
  const found = `set ${set} was not finished (${state})`;
  if (!isRunning) {
    const why = await heldFile(
      run,
      manifest,
      manifest.disks.map(({ overlay }) => overlay.file),
    );
    if (why !== undefined) {
      const did = `${why}, but no monitor of the VM answers: say with --qmp where it is`;
      run.note('yours', {
        set,
        kind: 'set-unfinished',
        found,
        did,
        commands: [options.command('recover', '--qmp', 'PATH')],
      });
      return;
    }
  }
  const after = recordOf(await viewSet(manifest, { monitors, isRunning, isBusy: false }));
  if (after.state === 'cut') {
    const how =
      isRunning && after.level !== 'none'
        ? 'the VM writes to its overlays'
        : 'its overlays hold what the VM wrote since';
    const start = isRunning
      ? ''
      : `; start the VM from ${overlayFiles(after)} (its other images hold the cut), or run "snapshot delete" to drop what it wrote since`;
    const did = `recorded as cut, level ${after.level}${start}`;
    await run.repair(
      { set, kind: 'set-unfinished', found: `${found}, but its disks were cut: ${how}`, did },
      async () => {
        await store.write(after);
        return undefined;
      },
    );
    return;
  }
  const { unseen } = await missingOverlays(manifest);
  if (unseen.length > 0) {
    noteMissing(run, manifest, unseen);
    return;
  }
  const { own: files, foreign } = await overlaysThere(manifest, await allManifests(options.stateDir));
  const did =
    files.length === 0
      ? `forget it: nothing of it is left${leftAlone(foreign)}`
      : `nothing was cut: remove its unused overlays (${files.join(', ')})${leftAlone(foreign)}`;
  await run.repair(
    { set, kind: 'set-unfinished', found, did, commands: [options.command('snapshot', 'delete', set)] },
    async () => {
      await rollBack(run, manifest, files, foreign);
      return undefined;
    },
  );
}

async function rollBack(
  run: RecoveryRun,
  manifest: Manifest,
  files: readonly string[],
  foreign: readonly string[],
): Promise<void> {
  const { store, monitors } = run;
  await withJournal(run, manifest.set, async () => {
    for (const monitor of monitors) await unloadOverlays(monitor, manifest);
    await checkRemovable(run, manifest, files);
    const [written] = await withData(files);
    if (written !== undefined) throw new BridgeError('E_DATA', `${written} holds what no other image has: not removed`);
    await removeSet(store, manifest, files, foreign);
  });
}

export async function recoverDelete(run: RecoveryRun, manifest: Manifest): Promise<void> {
  const { options, store } = run;
  const { set } = manifest;
  const { unseen } = await missingOverlays(manifest);
  if (unseen.length > 0) {
    noteMissing(run, manifest, unseen);
    return;
  }
  const { own: files, foreign } = await overlaysThere(manifest, await allManifests(options.stateDir));
  const found = `set ${set} is deleted in part`;
  const commands = [options.command('snapshot', 'delete', set)];
  const rest = files.length === 0 ? 'forget it' : `remove the rest of it (${files.join(', ')})`;
  await run.repair({ set, kind: 'set-delete', found, did: `${rest}${leftAlone(foreign)}`, commands }, async () => {
    await withJournal(run, set, async () => {
      await checkRemovable(run, manifest, files);
      await removeSet(store, manifest, files, foreign);
    });
    return undefined;
  });
}

function leftAlone(foreign: readonly string[]): string {
  return foreign.length === 0 ? '' : `; not known to be its own, and left alone: ${foreign.join(', ')}`;
}
