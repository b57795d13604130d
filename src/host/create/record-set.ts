// Writes down a set that was cut. Whatever fails from then on, the disks are cut, and the error tells the level that
// they have.
import { dirname } from 'node:path';
import { CutError, ThawUnconfirmedError, describeError } from '../../errors.js';
import type { Manifest } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { saveState } from '../sets/saved-files.js';
import type { StateFolder } from '../vm/state-folder.js';

/** The set with what the VM keeps beside its disks; recorded once more, since a tool killed here has a whole set. */
export async function withState(
  store: ManifestStore,
  manifest: Manifest,
  folders: readonly StateFolder[],
): Promise<Manifest> {
  if (folders.length === 0) return manifest;
  const { saved, leftOut } = await saveState(dirname(store.file(manifest.set)), folders);
  const whole = {
    ...manifest,
    saved: [...(manifest.saved ?? []), ...saved],
    leftOut: [...manifest.leftOut, ...leftOut],
  };
  const unrecorded = await record(store, whole);
  if (unrecorded !== undefined) throw unrecorded;
  return whole;
}

/** Gives the failure: what is to be told before it, if anything, is the caller's to know. */
export async function record(store: ManifestStore, manifest: Manifest): Promise<CutError | undefined> {
  try {
    await store.write(manifest);
    return undefined;
  } catch (cause) {
    const message = `the disks are cut (level ${manifest.level}), but the manifest of ${manifest.set} could not be written`;
    return new CutError('E_RECORD', `${message}: ${describeError(cause)}`, { cause });
  }
}

/** The guest comes first; a manifest that could not be written is told beside it. */
export function unconfirmed(
  { code, message, cause }: ThawUnconfirmedError,
  { set, level }: Manifest,
  unrecorded: CutError | undefined,
): ThawUnconfirmedError {
  const about = unrecorded?.message ?? `snapshot set ${set} was cut, level ${level}`;
  return new ThawUnconfirmedError(code, `${message} (${about})`, {
    cause,
    facts: { set, level, ...(unrecorded === undefined ? {} : { unrecorded: unrecorded.message }) },
  });
}
