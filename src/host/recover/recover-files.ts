// Helps all repairs of sets: the question before a file is touched, and the journal that is kept meanwhile.
import { BridgeError } from '../../errors.js';
import { whyInUse } from '../images/use.js';
import { witnessesFor } from '../sets/claims.js';
import { Journal } from '../sets/journal.js';
import { monitorOf, type Manifest } from '../sets/manifest.js';
import { definitionAt } from '../vm/definition.js';
import { placeNow } from '../vm/identity.js';
import type { RecoveryRun } from './recovery-run.js';

/** Throws a BridgeError for the first file that somebody uses. */
export async function checkRemovable(run: RecoveryRun, manifest: Manifest, files: readonly string[]): Promise<void> {
  const why = await heldFile(run, manifest, files);
  if (why !== undefined) throw new BridgeError('E_IN_USE', `${why}; not removed`);
}

export async function withJournal({ store }: RecoveryRun, set: string, work: () => Promise<void>): Promise<void> {
  const journal = await Journal.begin(store, set, 'recover');
  try {
    await work();
  } finally {
    await journal.end();
  }
}

/** For people: the first of the files that somebody uses, and who; undefined if nobody uses any. */
export async function heldFile(
  { options, monitors, store }: RecoveryRun,
  manifest: Manifest,
  files: readonly string[],
): Promise<string | undefined> {
  const saved = await definitionAt(placeNow(monitorOf(manifest), store.identity)).savedState();
  const use = await whyInUse(files, await witnessesFor(options.stateDir, manifest, monitors, saved));
  return use === undefined ? undefined : `${use.file}: ${use.why}`;
}

/** Tells of images that are not there: nobody knows what they hold, or whether they are gone. */
export function noteMissing(run: RecoveryRun, { set, state }: Manifest, files: readonly string[]): void {
  const { options } = run;
  run.note('yours', {
    set,
    kind: 'image-missing',
    found: `images of set ${set} (${state}) are not there: ${files.join(', ')}`,
    did: 'left alone: if their filesystem is not mounted, mount it and recover again; if they are gone for good, delete the set',
    commands: [options.command('recover'), options.command('snapshot', 'delete', set)],
  });
}
