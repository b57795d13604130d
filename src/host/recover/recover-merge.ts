// Recovers sets that were cut: brings their label up to what they are worth now, and takes up merges that ended
// half-way.
import { withData } from '../images/overlay-data.js';
import { holdsLess, recordOf, viewSet, type SetView } from '../sets/set-view.js';
import type { Manifest } from '../sets/manifest.js';
import { commitDoubts, commitSnapshot } from '../snapshot-commit.js';
import { noteMissing } from './recover-files.js';
import type { RecoveryRun } from './recovery-run.js';

export async function recoverCut(run: RecoveryRun, manifest: Manifest): Promise<void> {
  const { store } = run;
  const view = await viewOf(run, manifest);
  const missing = view.disks.flatMap((disk) => disk.missing);
  if (missing.length > 0) noteMissing(run, manifest, missing);
  if (!holdsLess(view)) return;
  const lost = view.disks.flatMap(({ notes }) => notes).join('; ');
  const found = `set ${manifest.set} (level ${manifest.level}) holds its cut no longer: ${lost}`;
  const after = recordOf(view);
  const did = `recorded as level ${after.level}${await whereWritten(manifest)}`;
  await run.repair({ set: manifest.set, kind: 'base-written', found, did }, async () => {
    await store.write(after);
    return undefined;
  });
}

async function viewOf({ monitors, isRunning }: RecoveryRun, manifest: Manifest): Promise<SetView> {
  return await viewSet(manifest, { monitors, isRunning, isBusy: false });
}

async function whereWritten({ disks }: Manifest): Promise<string> {
  const files = await withData(disks.map(({ overlay }) => overlay.file));
  if (files.length === 0) return '';
  return `; what the VM wrote after the cut is in ${files.join(', ')}, which no VM uses: "snapshot delete" drops it, and asks first`;
}

export async function recoverCommit(run: RecoveryRun, manifest: Manifest): Promise<void> {
  const { options, monitors, store } = run;
  const { set } = manifest;
  const found = `set ${set} is merged in part`;
  const command = options.command('snapshot', 'commit', set);
  if (manifest.pruning === true) {
    const did = 'newer sets lie on it, and hold their cuts: prune again, with the number of sets to keep';
    const commands = [options.command('snapshot', 'prune', '--keep', 'N')];
    run.note('yours', { set, kind: 'set-commit', found: `set ${set} was being pruned`, did, commands });
    return;
  }
  const { disks, notes } = await viewOf(run, manifest);
  const wrong = disks.filter(({ newest, inUse }) => newest !== undefined && newest.layer !== inUse);
  const [monitor] = monitors;
  if (monitor === undefined || wrong.length > 0) {
    const unclear = monitor === undefined ? disks : wrong;
    const did = [...notes, ...unclear.flatMap((disk) => disk.notes.map((note) => `disk ${disk.id}: ${note}`))].join(
      '; ',
    );
    const commands = monitor === undefined ? [command, `${command} --offline`] : [command];
    run.note('yours', { set, kind: 'set-commit', found, did, commands });
    return;
  }
  const doubts = await commitDoubts(monitor, manifest, begunOrAll(manifest).disks);
  if (doubts.length > 0) {
    run.note('yours', { set, kind: 'set-commit', found, did: doubts.join('; '), commands: [command] });
    return;
  }
  await run.repair({ set, kind: 'set-commit', found, did: 'merge the rest', commands: [command] }, async () => {
    const { stateDir, limits, signal, onProgress } = options;
    const confirm = (): Promise<boolean> => Promise.resolve(false);
    const about = { store, stateDir, set, limitMs: limits.commitMs, confirm, signal, onProgress };
    const { foreign } = await commitSnapshot(monitor, { ...about, ...begunOrAll(manifest) });
    const rest = foreign.length === 0 ? '' : `; not known to be its own, and left alone: ${foreign.join(', ')}`;
    return `merged; the state of the cut is gone${rest}`;
  });
}

// A commit of single disks goes on with those alone; an older version of this tool marked none.
function begunOrAll({ disks }: Manifest): { readonly disks?: 'begun' } {
  return disks.some(({ merge }) => merge !== undefined) ? { disks: 'begun' } : {};
}
