// Recovers the sets of one VM, newest first: ends what their states and journals say was begun. It goes forward if the
// act was decided (recover-merge.ts, recover-revert.ts), back if nothing was cut (recover-create.ts).
import { BridgeError } from '../../errors.js';
import { readJournal, removeJournal } from '../sets/journal.js';
import type { Manifest } from '../sets/manifest.js';
import { recoverCreate, recoverDelete } from './recover-create.js';
import { recoverCommit, recoverCut } from './recover-merge.js';
import { recoverRevert, removeRevertDrafts } from './recover-revert.js';
import { deadDraftOf, draftWrittenTo, removeDraft } from '../copy/copy-draft.js';
import type { RecoveryRun } from './recovery-run.js';

/** Tells of sets that somebody is working on; they are left alone. */
export async function noteBusySets(run: RecoveryRun): Promise<void> {
  const { store } = run;
  for (const set of await store.names()) {
    const journal = await readJournal(store.journalFile(set));
    if (journal === undefined || journal.owner === 'gone') continue;
    run.busy.add(set);
    const { entry, owner } = journal;
    const who = entry === undefined ? 'another process' : `process ${entry.owner.pid} (${entry.operation})`;
    const elsewhere = owner === 'elsewhere';
    run.note(elsewhere ? 'yours' : 'busy', {
      set,
      kind: 'set-busy',
      found: `set ${set} is being worked on by ${who}${elsewhere ? ' of another container' : ''}`,
      did: elsewhere ? 'if it has ended, remove its journal and recover again' : 'left alone',
      commands: elsewhere ? [`rm ${store.journalFile(set)}`] : [],
    });
  }
}

export async function recoverSets(run: RecoveryRun): Promise<void> {
  const { store } = run;
  const { manifests, unreadable } = await store.readAll();
  for (const { set, reason, empty } of unreadable) {
    if (run.busy.has(set)) continue;
    if (!empty) {
      const did = `repair or remove ${store.file(set)}; its overlays are found by "qemu-img info --backing-chain" of the VM's images`;
      run.note('yours', {
        set,
        kind: 'set-unreadable',
        found: `the manifest of set ${set} cannot be read: ${reason}`,
        did,
      });
      continue;
    }
    const found = `the name ${set} was taken, but nothing was made`;
    await run.repair({ set, kind: 'set-unfinished', found, did: 'free the name' }, async () => {
      await store.removeEmpty(set);
      return undefined;
    });
  }
  for (const manifest of manifests.toReversed()) {
    // The guest first: the journal that names it goes with its set.
    if (!run.busy.has(manifest.set) && !run.held.has(manifest.set)) await recoverSet(run, manifest);
  }
}

async function recoverSet(run: RecoveryRun, manifest: Manifest): Promise<void> {
  const known = run.findings.length;
  try {
    await bySetState(run, manifest);
  } catch (error) {
    if (run.options.signal.aborted || !(error instanceof BridgeError)) throw error;
    run.note('failed', {
      set: manifest.set,
      kind: 'set-left',
      found: `set ${manifest.set} is ${manifest.state}`,
      did: error.message,
    });
  }
  await removeCopyDraft(run, manifest.set);
  await clearJournal(
    run,
    manifest.set,
    run.findings.slice(known).some(({ status }) => status !== 'done'),
  );
}

async function bySetState(run: RecoveryRun, manifest: Manifest): Promise<void> {
  switch (manifest.state) {
    case 'creating':
    case 'cutting':
    case 'failed':
      await recoverCreate(run, manifest);
      break;
    case 'cut':
      await recoverCut(run, manifest);
      await removeRevertDrafts(run, manifest);
      break;
    case 'committing':
      await recoverCommit(run, manifest);
      break;
    case 'reverting':
      await recoverRevert(run, manifest);
      break;
    case 'deleting':
      await recoverDelete(run, manifest);
      break;
    case 'committed':
      break;
  }
}

// Removes a journal that nobody keeps any more, of work that is over; one that holds a guest is recover-guest.ts's.
async function clearJournal({ store, options }: RecoveryRun, set: string, isOpen: boolean): Promise<void> {
  if (options.dryRun || isOpen) return;
  const file = store.journalFile(set);
  const journal = await readJournal(file);
  if (journal?.owner === 'gone' && journal.entry?.hold === undefined) await removeJournal(file);
}

// Whole copies have their names; what has none is nobody's any more.
async function removeCopyDraft(run: RecoveryRun, set: string): Promise<void> {
  const written = await draftWrittenTo(run.store, set);
  if (written !== undefined) {
    const { draft, by } = written;
    const found = `a copy of set ${set} was ended, but ${by} still writes to it: ${draft}`;
    const did = 'left alone: recover again when that has ended, or end it';
    run.note('busy', { set, kind: 'file-left', found, did });
    return;
  }
  const draft = await deadDraftOf(run.store, set);
  if (draft === undefined) return;
  const found = `a copy of set ${set} ended before it was whole: ${draft}`;
  await run.repair({ set, kind: 'file-left', found, did: 'remove it' }, async () => {
    await removeDraft(draft);
    return undefined;
  });
}
