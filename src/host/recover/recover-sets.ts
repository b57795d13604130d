// The sets of one VM, newest first: what their states and journals say was begun, and how it is ended. Forward if it was
// decided (commit, revert, delete), back if nothing was cut.
import { stat } from 'node:fs/promises';
import { BridgeError } from '../../errors.js';
import { exists, removeFiles } from '../images/durable-file.js';
import { Journal, readJournal, removeJournal } from '../sets/journal.js';
import { layersOf, type Layer } from '../sets/layers.js';
import { withoutLostBases } from '../sets/lost-bases.js';
import { witnessesFor } from '../sets/claims.js';
import { overlaysThere } from '../sets/own-overlays.js';
import type { Manifest } from '../sets/manifest.js';
import { holdsData, withData } from '../images/overlay-data.js';
import { whyInUse } from '../images/use.js';
import { allManifests } from './recover-targets.js';
import { filesOf, type Recovery } from './recovery.js';
import { newerSets, settled } from '../sets/set-state.js';
import { commitDoubts, commitSnapshot } from '../snapshot-commit.js';
import { removeSet, unloadOverlays } from '../snapshot-delete.js';
import { draftOf, takeDrafts } from '../snapshot-revert.js';

/** Tells of sets that somebody is working on; they are left alone. */
export async function noteBusySets(recovery: Recovery): Promise<void> {
  const { store } = recovery;
  for (const set of await store.names()) {
    const journal = await readJournal(store.journalFile(set));
    if (journal === undefined || journal.owner === 'gone') continue;
    recovery.busy.add(set);
    const { entry, owner } = journal;
    const who = entry === undefined ? 'another process' : `process ${entry.owner.pid} (${entry.operation})`;
    const elsewhere = owner === 'elsewhere';
    recovery.note(elsewhere ? 'yours' : 'busy', {
      set,
      kind: 'set-busy',
      found: `set ${set} is being worked on by ${who}${elsewhere ? ' of another container' : ''}`,
      did: elsewhere ? 'if it has ended, remove its journal and recover again' : 'left alone',
      commands: elsewhere ? [`rm ${store.journalFile(set)}`] : [],
    });
  }
}

export async function recoverSets(recovery: Recovery): Promise<void> {
  const { store } = recovery;
  const { manifests, unreadable } = await store.readAll();
  for (const { set, reason, empty } of unreadable) {
    if (recovery.busy.has(set)) continue;
    if (!empty) {
      const did = `repair or remove ${store.file(set)}; its overlays are found by "qemu-img info --backing-chain" of the VM's images`;
      recovery.note('yours', {
        set,
        kind: 'set-unreadable',
        found: `the manifest of set ${set} cannot be read: ${reason}`,
        did,
      });
      continue;
    }
    const found = `the name ${set} was taken, but nothing was made`;
    await recovery.repair({ set, kind: 'set-unfinished', found, did: 'free the name' }, async () => {
      await store.removeEmpty(set);
      return undefined;
    });
  }
  for (const manifest of manifests.toReversed()) {
    // The guest first: the journal that names it goes with its set.
    if (!recovery.busy.has(manifest.set) && !recovery.held.has(manifest.set)) await recoverSet(recovery, manifest);
  }
}

async function recoverSet(recovery: Recovery, manifest: Manifest): Promise<void> {
  const known = recovery.findings.length;
  try {
    await bySetState(recovery, manifest);
  } catch (error) {
    if (recovery.options.signal.aborted || !(error instanceof BridgeError)) throw error;
    recovery.note('failed', {
      set: manifest.set,
      kind: 'set-left',
      found: `set ${manifest.set} is ${manifest.state}`,
      did: error.message,
    });
  }
  await clearJournal(
    recovery,
    manifest.set,
    recovery.findings.slice(known).some(({ status }) => status !== 'done'),
  );
}

async function bySetState(recovery: Recovery, manifest: Manifest): Promise<void> {
  switch (manifest.state) {
    case 'creating':
    case 'cutting':
    case 'failed':
      await recoverCreate(recovery, manifest);
      break;
    case 'cut':
      await recoverCut(recovery, manifest);
      break;
    case 'committing':
      await recoverCommit(recovery, manifest);
      break;
    case 'reverting':
      await recoverRevert(recovery, manifest);
      break;
    case 'deleting':
      await recoverDelete(recovery, manifest);
      break;
    case 'committed':
      break;
  }
}

// A journal that nobody keeps any more, of work that is over; one that holds a guest is recover-guest.ts's.
async function clearJournal({ store, options }: Recovery, set: string, isOpen: boolean): Promise<void> {
  if (options.dryRun || isOpen) return;
  const file = store.journalFile(set);
  const journal = await readJournal(file);
  if (journal?.owner === 'gone' && journal.entry?.hold === undefined) await removeJournal(file);
}

async function recoverCreate(recovery: Recovery, manifest: Manifest): Promise<void> {
  const { store, monitors, isRunning, options } = recovery;
  const { set, state } = manifest;
  const found = `set ${set} was not finished (${state})`;
  if (!isRunning) {
    const why = await heldFile(
      recovery,
      manifest,
      manifest.disks.map(({ overlay }) => overlay.file),
    );
    if (why !== undefined) {
      const did = `${why}, but no monitor of the VM answers: say with --qmp where it is`;
      recovery.note('yours', {
        set,
        kind: 'set-unfinished',
        found,
        did,
        commands: [options.command('recover', '--qmp', 'PATH')],
      });
      return;
    }
  }
  const after = await settled(monitors, manifest);
  if (after.state === 'cut') {
    const how =
      isRunning && after.level !== 'none'
        ? 'the VM writes to its overlays'
        : 'its overlays hold what the VM wrote since';
    const start = isRunning
      ? ''
      : `; start the VM from ${filesOf(after)} (its other images hold the cut), or run "snapshot delete" to drop what it wrote since`;
    const did = `recorded as cut, level ${after.level}${start}`;
    await recovery.repair(
      { set, kind: 'set-unfinished', found: `${found}, but its disks were cut: ${how}`, did },
      async () => {
        await store.write(after);
        return undefined;
      },
    );
    return;
  }
  const files = (await overlaysThere(manifest, await allManifests(options.stateDir))).own;
  const did =
    files.length === 0
      ? 'forget it: nothing of it is left'
      : `nothing was cut: remove its unused overlays (${files.join(', ')})`;
  await recovery.repair(
    { set, kind: 'set-unfinished', found, did, commands: [options.command('snapshot', 'delete', set)] },
    async () => {
      await rollBack(recovery, manifest, files);
      return undefined;
    },
  );
}

async function rollBack(recovery: Recovery, manifest: Manifest, files: readonly string[]): Promise<void> {
  const { store, monitors } = recovery;
  await withJournal(recovery, manifest.set, async () => {
    for (const monitor of monitors) await unloadOverlays(monitor, manifest);
    await checkRemovable(recovery, manifest, files);
    const [written] = await withData(files);
    if (written !== undefined) throw new BridgeError('E_DATA', `${written} holds what no other image has: not removed`);
    await removeSet(store, manifest, files);
  });
}

/** Throws a BridgeError for the first file that somebody uses. */
async function checkRemovable(recovery: Recovery, manifest: Manifest, files: readonly string[]): Promise<void> {
  const why = await heldFile(recovery, manifest, files);
  if (why !== undefined) throw new BridgeError('E_IN_USE', `${why}; not removed`);
}

async function recoverCut(recovery: Recovery, manifest: Manifest): Promise<void> {
  const { store, monitors } = recovery;
  const layers: Layer[] = [];
  for (const monitor of monitors) layers.push(...(await layersOf(monitor, manifest)));
  const fallen = await withoutLostBases(manifest, layers);
  if (fallen !== undefined) {
    const found = `set ${manifest.set} (level ${manifest.level}): the VM was started from bases that hold its cut, and wrote to them`;
    const did = `recorded as level ${fallen.level}${await whereWritten(manifest)}`;
    await recovery.repair({ set: manifest.set, kind: 'base-written', found, did }, async () => {
      await store.write(fallen);
      return undefined;
    });
  }
  await removeRevertDrafts(recovery, manifest);
}

async function whereWritten({ disks }: Manifest): Promise<string> {
  const files = await withData(disks.map(({ overlay }) => overlay.file));
  if (files.length === 0) return '';
  return `; what the VM wrote after the cut is in ${files.join(', ')}, which no VM uses: "snapshot delete" drops it, and asks first`;
}

// Made, but not used before the tool was killed: the set was not changed.
async function removeRevertDrafts(recovery: Recovery, manifest: Manifest): Promise<void> {
  const drafts: string[] = [];
  for (const { overlay } of manifest.disks) if (await exists(draftOf(overlay.file))) drafts.push(draftOf(overlay.file));
  if (drafts.length === 0) return;
  const found = `a revert of set ${manifest.set} ended before it changed anything`;
  const did = `remove its empty drafts (${drafts.join(', ')})`;
  await recovery.repair({ set: manifest.set, kind: 'set-revert', found, did }, async () => {
    await withJournal(recovery, manifest.set, async () => {
      await checkRemovable(recovery, manifest, drafts);
      const [written] = await withData(drafts);
      if (written !== undefined) throw new BridgeError('E_DATA', `${written} holds data: not removed`);
      await removeFiles(drafts);
    });
    return undefined;
  });
}

async function recoverCommit(recovery: Recovery, manifest: Manifest): Promise<void> {
  const { options, monitors, store } = recovery;
  const { set } = manifest;
  const found = `set ${set} is merged in part`;
  const [monitor] = monitors;
  const command = options.command('snapshot', 'commit', set);
  if (monitor === undefined) {
    recovery.note('yours', { set, kind: 'set-commit', found, did: await howToStart(manifest), commands: [command] });
    return;
  }
  const doubts = await commitDoubts(monitor, manifest);
  if (doubts.length > 0) {
    recovery.note('yours', { set, kind: 'set-commit', found, did: doubts.join('; '), commands: [command] });
    return;
  }
  await recovery.repair({ set, kind: 'set-commit', found, did: 'merge the rest', commands: [command] }, async () => {
    const { stateDir, limits, signal, onProgress } = options;
    const confirm = (): Promise<boolean> => Promise.resolve(false);
    const about = { store, stateDir, set, limitMs: limits.commitMs, confirm, signal, onProgress };
    await commitSnapshot(monitor, { ...about, ...begunOrAll(manifest) });
    return 'merged; the state of the cut is gone';
  });
}

// Of a commit of single disks only those; an older version of this tool marked none.
function begunOrAll({ disks }: Manifest): { readonly disks?: 'begun' } {
  return disks.some(({ merge }) => merge !== undefined) ? { disks: 'begun' } : {};
}

// With the VM shut off: which file holds the newest state of each disk.
async function howToStart({ disks }: Manifest): Promise<string> {
  const files: string[] = [];
  const doubts: string[] = [];
  for (const { id, base, overlay, merged, pivoted, pivoting } of disks) {
    const isOnBase = merged || pivoted === true;
    files.push(isOnBase ? base.file : overlay.file);
    if (isOnBase || pivoting !== true) continue;
    const [ofBase, ofOverlay] = await Promise.all([writtenAt(base.file), writtenAt(overlay.file)]);
    const last = `${base.file} was written last at ${ofBase}, ${overlay.file} at ${ofOverlay}`;
    doubts.push(
      `disk ${id}: QEMU ended while the VM changed over from overlay to base: the one written last is the newer one (${last})`,
    );
  }
  return [`start the VM from ${files.join(', ')} and commit the set again`, ...doubts].join('; ');
}

async function writtenAt(file: string): Promise<string> {
  return await stat(file).then(
    ({ mtime }) => mtime.toISOString(),
    () => 'no time: it is not there',
  );
}

async function recoverRevert(recovery: Recovery, manifest: Manifest): Promise<void> {
  const { options, store, isRunning } = recovery;
  const { set, disks } = manifest;
  const found = `set ${set} is reverted in part: some of its disks are at the cut, others are not`;
  const commands = [options.command('snapshot', 'revert', set)];
  const tell = (did: string): void => {
    recovery.note('yours', { set, kind: 'set-revert', found, did, commands });
  };
  if (isRunning) {
    tell('shut the VM off, and revert again');
    return;
  }
  const drafts: string[] = [];
  for (const { overlay } of disks) {
    if (await exists(draftOf(overlay.file))) drafts.push(overlay.file);
    // Emptied before, so a VM was started from it since.
    else if (await holdsData(overlay.file)) {
      tell(`${overlay.file} was emptied and written to since: if what was written may be lost, revert again`);
      return;
    }
  }
  await recovery.repair({ set, kind: 'set-revert', found, did: 'revert the rest', commands }, async () => {
    await withJournal(recovery, set, async () => {
      const why = await heldFile(
        recovery,
        manifest,
        disks.map(({ overlay }) => overlay.file),
      );
      if (why !== undefined) throw new BridgeError('E_IN_USE', `${why}: not reverted`);
      const above = newerSets(manifest, await allManifests(options.stateDir));
      if (above.length > 0) throw new BridgeError('E_NEWER_SETS', `newer sets lie on ${set}: ${above.join(', ')}`);
      await takeDrafts(store, manifest, drafts);
    });
    return `reverted; start the VM from ${filesOf(manifest)}`;
  });
}

async function recoverDelete(recovery: Recovery, manifest: Manifest): Promise<void> {
  const { options, store } = recovery;
  const { set } = manifest;
  const files = (await overlaysThere(manifest, await allManifests(options.stateDir))).own;
  const found = `set ${set} is deleted in part`;
  const commands = [options.command('snapshot', 'delete', set)];
  const rest = files.length === 0 ? 'forget it' : `remove the rest of it (${files.join(', ')})`;
  await recovery.repair({ set, kind: 'set-delete', found, did: rest, commands }, async () => {
    await withJournal(recovery, set, async () => {
      await checkRemovable(recovery, manifest, files);
      await removeSet(store, manifest, files);
    });
    return undefined;
  });
}

async function withJournal({ store }: Recovery, set: string, work: () => Promise<void>): Promise<void> {
  const journal = await Journal.begin(store, set, 'recover');
  try {
    await work();
  } finally {
    await journal.end();
  }
}

async function heldFile(
  { options, monitors }: Recovery,
  manifest: Manifest,
  files: readonly string[],
): Promise<string | undefined> {
  const use = await whyInUse(files, await witnessesFor(options.stateDir, manifest, monitors));
  return use === undefined ? undefined : `${use.file}: ${use.why}`;
}
