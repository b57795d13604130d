// What the repairs of sets ask before they touch a file, and the journal that they keep meanwhile.
import { BridgeError } from '../../errors.js';
import { whyInUse } from '../images/use.js';
import { witnessesFor } from '../sets/claims.js';
import { Journal } from '../sets/journal.js';
import type { Manifest } from '../sets/manifest.js';
import type { Recovery } from './recovery.js';

/** Throws a BridgeError for the first file that somebody uses. */
export async function checkRemovable(recovery: Recovery, manifest: Manifest, files: readonly string[]): Promise<void> {
  const why = await heldFile(recovery, manifest, files);
  if (why !== undefined) throw new BridgeError('E_IN_USE', `${why}; not removed`);
}

export async function withJournal({ store }: Recovery, set: string, work: () => Promise<void>): Promise<void> {
  const journal = await Journal.begin(store, set, 'recover');
  try {
    await work();
  } finally {
    await journal.end();
  }
}

/** The first of the files that somebody uses, and who; for people. */
export async function heldFile(
  { options, monitors }: Recovery,
  manifest: Manifest,
  files: readonly string[],
): Promise<string | undefined> {
  const use = await whyInUse(files, await witnessesFor(options.stateDir, manifest, monitors));
  return use === undefined ? undefined : `${use.file}: ${use.why}`;
}
