// What the repairs of sets ask before they touch a file, and the journal that they keep meanwhile.
import { BridgeError } from '../../errors.js';
import { describeHolders, holdersOf } from '../images/image-file.js';
import { whyInUse } from '../images/use.js';
import { claimsOf } from '../sets/claims.js';
import { Journal } from '../sets/journal.js';
import type { Manifest } from '../sets/manifest.js';
import { allManifests } from './recover-targets.js';
import type { Recovery } from './recovery.js';

/** Throws a BridgeError for the first file that somebody uses. */
export async function checkRemovable(recovery: Recovery, { id }: Manifest, files: readonly string[]): Promise<void> {
  const all = await allManifests(recovery.options.stateDir);
  const witnesses = { monitors: recovery.monitors, claims: claimsOf(all.filter((other) => other.id !== id)) };
  for (const file of files) {
    const why = await whyInUse(file, witnesses);
    if (why !== undefined) throw new BridgeError('E_IN_USE', `${file}: ${why}; not removed`);
  }
}

export async function withJournal({ store }: Recovery, set: string, work: () => Promise<void>): Promise<void> {
  const journal = await Journal.begin(store, set, 'recover');
  try {
    await work();
  } finally {
    await journal.end();
  }
}

export async function heldFile(files: readonly string[]): Promise<string | undefined> {
  for (const file of files) {
    const holders = await holdersOf(file);
    if (holders.length > 0) return `${file} is in use by ${describeHolders(holders)}`;
  }
  return undefined;
}
