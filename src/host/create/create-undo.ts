// Rolls back a cut that failed, and picks the one error that is told of it.
import { CutError, QuiesceError, ThawUnconfirmedError, describeError } from '../../errors.js';
import type { Reverter } from '../../reverter.js';
import { interruption } from '../../confirm.js';
import { isCutUnknown } from './held-cut.js';
import type { Manifest } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { clip } from '../guest/clip.js';

/**
 * Undoes everything and gives the error to throw: the one that endangers the guest, if there is one. The set is
 * forgotten if nothing of it is left; else its manifest stays, as `failed`. Never throws.
 */
export async function undoCreate(
  reverter: Reverter,
  store: ManifestStore,
  draft: Manifest | undefined,
  signal: AbortSignal,
  error: unknown,
): Promise<unknown> {
  const failure = signal.aborted ? interrupted(signal, error) : error;
  // Nobody knows whether the VM writes to the overlays: they stay, and so does the manifest, `cutting`, that names
  // them.
  if (isCutUnknown(failure)) {
    reverter.keep();
    return failure;
  }
  try {
    await reverter.revert();
    if (draft !== undefined) await store.remove(draft.set);
    return failure;
  } catch (undoError) {
    const failures: unknown[] = undoError instanceof AggregateError ? undoError.errors : [undoError];
    const all = [failure, ...failures, ...(await recordFailed(store, draft, [failure, ...failures]))];
    const cause = new AggregateError(all, all.map(describeError).join('; '));
    const grave = all.flatMap((each) => [each, each instanceof Error ? each.cause : undefined]);
    const unconfirmed = grave.find((each) => each instanceof ThawUnconfirmedError);
    if (unconfirmed !== undefined) return new ThawUnconfirmedError(unconfirmed.code, unconfirmed.message, { cause });
    return new CutError('E_UNDO', 'the cut failed, and not everything could be undone', { cause });
  }
}

/**
 * Records the set as `failed`. Gives what kept it from being written, if anything, to be told beside the other errors.
 */
async function recordFailed(
  store: ManifestStore,
  draft: Manifest | undefined,
  failures: readonly unknown[],
): Promise<unknown[]> {
  if (draft === undefined) return [];
  try {
    await store.write({ ...draft, state: 'failed', error: clip(failures.map(describeError).join('; ')) });
    return [];
  } catch (error) {
    return [new Error(`the manifest of ${draft.set} could not be written`, { cause: error })];
  }
}

function interrupted(signal: AbortSignal, error: unknown): unknown {
  if (error instanceof ThawUnconfirmedError || isCutUnknown(error)) return error;
  const message = interruption(signal, 'the guest is thawed, nothing was cut');
  return new QuiesceError('E_INTERRUPTED', message, { cause: error });
}
