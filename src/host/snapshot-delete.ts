// `snapshot delete`: removes a set and what belongs to it, if nobody uses it: the manifest, and overlays that no VM
// writes to and no newer set lies on. Never touches a base, nor a file that is not the set's own any more.
import { join } from 'node:path';
import { QuiesceError, UsageError } from '../errors.js';
import { throwIfInterrupted, type Confirm } from '../confirm.js';
import { exists, removeFiles } from './images/durable-file.js';
import { withData } from './images/overlay-data.js';
import { whyInUse } from './images/use.js';
import { everySet, witnessesFor } from './sets/claims.js';
import { leaveOverlays, LINKS } from './sets/current-images.js';
import { withNamedBase } from './sets/disk-layers.js';
import { Journal, refuseBusy } from './sets/journal.js';
import { layersOf } from './sets/layers.js';
import { missingOverlays } from './sets/missing-images.js';
import { monitorOf, type Manifest } from './sets/manifest.js';
import type { ManifestStore } from './sets/manifest-store.js';
import { overlaysThere } from './sets/own-overlays.js';
import { definitionAt } from './vm/definition.js';
import { placeNow } from './vm/identity.js';
import type { Place } from './vm/place.js';
import { putBackDefinition } from './sets/put-back-definition.js';
import { newerSets, settleState } from './sets/set-state.js';
import { draftOf } from './snapshot-revert.js';
import type { Hypervisor } from './vm/hypervisor.js';
import { openMonitors } from './vm/monitors.js';

export interface DeleteOptions {
  readonly store: ManifestStore;
  readonly stateDir: string;
  readonly set: string;
  /** The VM's monitor, besides the one the set was made through; nobody listens there if it is shut off. */
  readonly monitor: Place;
  readonly monitorTimeoutMs: number;
  /** Asked only if something may be lost that the VM wrote. */
  readonly confirm: Confirm;
  readonly signal: AbortSignal;
}

export interface Deleted {
  readonly files: readonly string[];
  /** Files that have the overlays' names, but are not the set's own any more: left alone. */
  readonly foreign: readonly string[];
}

/**
 * Deletes. Throws a UsageError if a VM or a newer set uses one of the overlays, or one holds what was merged in part; a
 * QuiesceError if the answer was no, or when interrupted. Nothing was changed in these cases.
 */
export async function deleteSnapshot(options: DeleteOptions): Promise<Deleted> {
  const { store, set, confirm } = options;
  await refuseBusy(store, set);
  if (await store.removeEmpty(set)) return { files: [], foreign: [] };
  const asked = await checkUnused(options, 'look');
  const losses = await lossesOf(asked);
  if (losses.length > 0 && !(await confirm(`${losses.join('; ')}. Delete ${set}?`))) {
    throw new QuiesceError('E_DECLINED', 'not deleted: the answer was no');
  }
  throwIfInterrupted(options.signal, `${set} was not deleted`);
  const journal = await Journal.begin(store, set, 'delete');
  try {
    // While somebody thought about the question the VM may have been started, or another set made.
    const { manifest, files, foreign } = await checkUnused(options, 'unload');
    if (manifest.id !== asked.manifest.id) {
      throw new UsageError('E_STATE_OF_SET', `${set} is another set by now: nothing was deleted`);
    }
    const disks = await Promise.all(manifest.disks.map(withNamedBase));
    await removeSet(store, await store.write({ ...manifest, disks, state: 'deleting' }), files, foreign);
    return { files, foreign };
  } finally {
    await journal.end();
  }
}

/** The rest of a deletion that was decided; `files` must be nobody's, and `foreign` stay, but no link leads to them. */
export async function removeSet(
  store: ManifestStore,
  manifest: Manifest,
  files: readonly string[],
  foreign: readonly string[],
): Promise<void> {
  const { removed } = await missingOverlays(manifest);
  // The definition changes before the files are gone: what libvirt is to start must be there.
  await putBackDefinition(store, manifest, [...files, ...removed]);
  await leaveOverlays(join(store.folder, LINKS), manifest, [...files, ...foreign, ...removed]);
  await removeFiles(files);
  await removeDrafts(manifest);
  await store.remove(manifest.set);
}

/** Removes the drafts of a revert that ended half-way. */
async function removeDrafts({ disks }: Manifest): Promise<void> {
  for (const { overlay } of disks) {
    const draft = draftOf(overlay.file);
    if (await exists(draft)) await removeFiles([draft]);
  }
}

/** Sentences that tell which data of the VM may be lost. */
async function lossesOf({ manifest, files, foreign }: Unused): Promise<string[]> {
  const { state, createdAt } = manifest;
  const { removed, unseen } = await missingOverlays(manifest);
  const losses: string[] = [];
  const lose = (those: readonly string[], why: string): void => {
    if (those.length > 0) losses.push(`${those.join(', ')} ${why}`);
  };
  const isOver = state === 'deleting' || state === 'committed';
  // A set that was never cut can lose only what its overlays hold: its maker may have been killed after all.
  const isUncut = state === 'failed' || state === 'creating';
  const dropped = isOver ? [] : isUncut ? await withData(files) : files;
  if (dropped.length > 0) losses.push(`Everything the VM wrote since ${createdAt} is lost (${dropped.join(', ')})`);
  const mayHold = `what the VM wrote since ${createdAt} may be in it, and nothing names it afterwards`;
  lose(foreign, `is not known to be the set's own, and is left alone: ${mayHold}`);
  lose(unseen, `is not there, and its filesystem may only be not mounted: ${mayHold}`);
  if (!isOver && !isUncut)
    lose(removed, 'was removed, with what the VM wrote to it: only the state of the cut is left');
  return losses;
}

interface Unused {
  readonly manifest: Manifest;
  readonly files: readonly string[];
  readonly foreign: readonly string[];
}

/**
 * The set as it is now, with its state settled, and those of its overlays that are there. Throws if they are in use: only
 * if none is, what a VM has open without using it is closed.
 */
async function checkUnused(options: DeleteOptions, open: 'look' | 'unload'): Promise<Unused> {
  const { store, stateDir, set, monitor, monitorTimeoutMs } = options;
  const read = await store.read(set);
  await using monitors = await openMonitors([monitor, monitorOf(read)], monitorTimeoutMs, store.identity);
  const manifest = await settleState(monitors.open, store, read);
  // Without an overlay no revert leads out of it.
  const { removed, unseen } = await missingOverlays(manifest);
  if (manifest.state === 'reverting' && removed.length + unseen.length === 0) {
    throw new UsageError('E_STATE_OF_SET', `${set} is reverted in part: revert it again first`);
  }
  const above = await newerSets(manifest, await store.readAllOrRefuse());
  if (above.length > 0) {
    const message = `newer snapshot sets lie on ${set}: ${above.join(', ')}; delete or commit them first`;
    throw new UsageError('E_NEWER_SETS', message);
  }
  const { own: files, foreign } = await overlaysThere(manifest, (await everySet(stateDir)).manifests);
  refuseHalf(manifest, files);
  const witnesses = await witnessesFor(
    stateDir,
    manifest,
    monitors.open,
    await definitionAt(placeNow(monitorOf(manifest), store.identity)).savedState(),
  );
  const loaded = await loadedOverlays(monitors.open, manifest);
  for (const file of files) {
    refuse(set, await whyInUse([file], witnesses, loaded.has(file) ? { vmOf: file } : {}));
  }
  if (open === 'unload' && loaded.size > 0) {
    for (const monitor of monitors.open) await unloadOverlays(monitor, manifest);
    refuse(set, await whyInUse(files, witnesses));
  }
  return { manifest, files, foreign };
}

function refuse(set: string, use: { readonly file: string; readonly why: string } | undefined): void {
  if (use === undefined) return;
  throw new UsageError('E_IN_USE', `${use.file}: ${use.why}; commit ${set} first, or shut the VM off`);
}

// While the base holds a part of the overlay, neither the base alone nor the state of the cut is whole.
function refuseHalf({ set, state, disks }: Manifest, files: readonly string[]): void {
  const half = disks.find(
    ({ merged, pivoted, merge, overlay }) =>
      !merged &&
      pivoted !== true &&
      (merge === 'begun' || (merge === undefined && state === 'committing')) &&
      files.includes(overlay.file),
  );
  if (half === undefined) return;
  const message = `${set} was merged in part, and ${half.overlay.file} holds the rest`;
  throw new UsageError('E_STATE_OF_SET', `${message}: commit it again, the VM started from its overlays`);
}

async function loadedOverlays(monitors: readonly Hypervisor[], manifest: Manifest): Promise<Set<string>> {
  const loaded = new Set<string>();
  for (const monitor of monitors) {
    for (const { place, disk } of await layersOf(monitor, manifest)) {
      if (place === 'loaded') loaded.add(disk.overlay.file);
    }
  }
  return loaded;
}

/** Takes out of QEMU what a tool left that was killed before its cut: open, but no disk's. */
export async function unloadOverlays(hypervisor: Hypervisor, manifest: Manifest): Promise<void> {
  for (const { place, overlayNode } of await layersOf(hypervisor, manifest)) {
    if (place === 'loaded') await hypervisor.forget(overlayNode, undefined);
  }
}
