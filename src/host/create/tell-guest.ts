// The last word to the guest: once a set is recorded, its writers may forget what only the set made superfluous, or are
// told that they must not. It comes after everything that makes the set, and takes nothing from it: what goes wrong here
// is a warning.
import type { Coordinator } from '../../consistency.js';
import { describeError } from '../../errors.js';
import { clip } from '../guest/clip.js';
import { checkSize } from '../guest/report-size.js';
import type { Manifest } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import type { HeldCut } from './held-cut.js';
import { record } from './record-set.js';

export interface TellOptions {
  readonly coordinator: Pick<Coordinator, 'complete'> | undefined;
  readonly held: HeldCut;
  /** The level reached is the one asked for, or better. */
  readonly satisfied: boolean;
  readonly signal: AbortSignal;
}

/**
 * The set with what its writers were told; as it is if there is nobody to tell: the guest was not held, or its agent
 * knows no such thing. `manifest`: as it is recorded. Never throws.
 */
export async function tellGuest(store: ManifestStore, manifest: Manifest, options: TellOptions): Promise<Manifest> {
  const { coordinator, held, satisfied, signal } = options;
  if (coordinator === undefined || held.report === undefined) return manifest;
  const outcome = satisfied && held.doubt === undefined ? 'ok' : 'failed';
  const completion = await completionOf(coordinator, held.report.session, outcome, signal);
  if (completion === undefined) return manifest;
  const told: Manifest = { ...manifest, completion };
  const unrecorded = await record(store, told);
  if (unrecorded === undefined) return told;
  return { ...told, completion: { ...completion, error: clip(describeError(unrecorded)) } };
}

/** What the writers of the session were told; undefined if its agent knows no such thing. Never throws. */
export async function completionOf(
  coordinator: Pick<Coordinator, 'complete'>,
  session: string,
  outcome: 'ok' | 'failed',
  signal: AbortSignal,
): Promise<Manifest['completion']> {
  try {
    const answer = await coordinator.complete(session, outcome, signal);
    if (answer === undefined) return undefined;
    checkSize('answer to bridge-complete', answer);
    return { outcome: answer.outcome, writers: answer.writers };
  } catch (error) {
    return { outcome, writers: [], error: clip(`telling the guest failed: ${describeError(error)}`) };
  }
}
