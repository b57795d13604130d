// What the repairs of sets ask before they touch a file, and the journal that they keep meanwhile.
import { BridgeError } from '../../errors.js';
import { whyInUse } from '../images/use.js';
import { witnessesFor } from '../sets/claims.js';
import { Journal } from '../sets/journal.js';
import type { Manifest } from '../sets/manifest.js';
import { domainOf } from '../vm/identity.js';
import { managedSaveOf } from '../vm/libvirt/managed-save.js';
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
  { options, monitors, store }: Recovery,
  manifest: Manifest,
  files: readonly string[],
): Promise<string | undefined> {
  const saved = await managedSaveOf(domainOf(manifest.vm.qmp, store.identity));
  const use = await whyInUse(files, await witnessesFor(options.stateDir, manifest, monitors, saved));
  return use === undefined ? undefined : `${use.file}: ${use.why}`;
}

/** Tells of images that are not there: what they hold, and whether they are gone, is not known. */
export function noteMissing(recovery: Recovery, { set, state }: Manifest, files: readonly string[]): void {
  const { options } = recovery;
  recovery.note('yours', {
    set,
    kind: 'image-missing',
    found: `images of set ${set} (${state}) are not there: ${files.join(', ')}`,
    did: 'left alone: if their filesystem is not mounted, mount it and recover again; if they are gone for good, delete the set',
    commands: [options.command('recover'), options.command('snapshot', 'delete', set)],
  });
}
