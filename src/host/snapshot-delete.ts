// Removes a set and what belongs to it, if nobody uses it: the manifest, and overlays that no VM writes to and no newer
// set lies on. Never touches a base.
import { stat } from 'node:fs/promises';
import { QuiesceError, UsageError } from '../errors.js';
import { throwIfInterrupted, type Confirm } from './confirm.js';
import { removeFiles } from './images/durable-file.js';
import { isErrno } from './errno.js';
import type { Hypervisor } from './vm/hypervisor.js';
import { Journal, refuseBusy } from './sets/journal.js';
import { layersOf } from './sets/layers.js';
import type { Manifest } from './sets/manifest.js';
import type { ManifestStore } from './sets/manifest-store.js';
import { openMonitors } from './vm/monitors.js';
import { withData } from './images/overlay-data.js';
import { whyInUse } from './images/use.js';
import { newerSets, settleState } from './sets/set-state.js';

export interface DeleteOptions {
  readonly store: ManifestStore;
  readonly set: string;
  /** The VM's monitor, besides the one the set was made through; nobody listens there if it is shut off. */
  readonly qmp: string;
  readonly monitorTimeoutMs: number;
  /** Asked only if something may be lost that the VM wrote. */
  readonly confirm: Confirm;
  readonly signal: AbortSignal;
}

/**
 * Deletes; gives the files removed. Throws a UsageError if a VM or a newer set uses one of the overlays, or one holds what
 * was merged in part; a QuiesceError if the answer was no, or when interrupted. Nothing was changed in these cases.
 */
export async function deleteSnapshot(options: DeleteOptions): Promise<readonly string[]> {
  const { store, set, confirm } = options;
  await refuseBusy(store, set);
  if (await store.removeEmpty(set)) return [];
  let { manifest, files } = await checkUnused(options);
  if (await holdsWrites(manifest, files)) {
    const question = `Everything the VM wrote since ${manifest.createdAt} is lost (${files.join(', ')}). Delete ${set}?`;
    if (!(await confirm(question))) throw new QuiesceError('E_DECLINED', 'not deleted: the answer was no');
    // While somebody thought about the question the VM may have been started, or another set made.
    const { id } = manifest;
    ({ manifest, files } = await checkUnused(options));
    if (manifest.id !== id) throw new UsageError('E_STATE_OF_SET', `${set} is another set by now: nothing was deleted`);
  }
  throwIfInterrupted(options.signal, `${set} was not deleted`);
  const journal = await Journal.begin(store, set, 'delete');
  try {
    await removeSet(store, await store.write({ ...manifest, state: 'deleting' }), files);
  } finally {
    await journal.end();
  }
  return files;
}

/** The rest of a deletion that was decided; the files must be nobody's. */
export async function removeSet(store: ManifestStore, manifest: Manifest, files: readonly string[]): Promise<void> {
  const { vm, set, disks } = manifest;
  const { changeDefinition } = await import('./vm/libvirt/definition.js');
  // Before the files are gone: what libvirt is to start must be there.
  await changeDefinition(
    vm.qmp,
    disks.map(({ base, overlay }) => ({ from: overlay.file, to: base.file, format: base.format })),
  );
  await removeFiles(files);
  await store.remove(set);
}

// Of a set that was never cut only what its overlays hold can be lost: its maker may have been killed after all.
async function holdsWrites({ state }: Manifest, files: readonly string[]): Promise<boolean> {
  if (files.length === 0 || state === 'deleting') return false;
  if (state !== 'failed' && state !== 'creating') return true;
  return (await withData(files)).length > 0;
}

/** The set as it is now, with its state settled, and those of its overlays that are there. Throws if they are in use. */
async function checkUnused(options: DeleteOptions): Promise<{ manifest: Manifest; files: string[] }> {
  const { store, set, qmp, monitorTimeoutMs } = options;
  const read = await store.read(set);
  await using monitors = await openMonitors([qmp, read.vm.qmp], monitorTimeoutMs, store.identity);
  const manifest = await settleState(monitors.open, store, read);
  if (manifest.state === 'reverting') {
    throw new UsageError('E_STATE_OF_SET', `${set} is reverted in part: revert it again first`);
  }
  const above = newerSets(manifest, await store.readAllOrRefuse());
  if (above.length > 0) {
    throw new UsageError(
      'E_NEWER_SETS',
      `newer snapshot sets lie on ${set}: ${above.join(', ')}; delete or commit them first`,
    );
  }
  const files = await overlaysThere(manifest);
  // Its base holds a part of it, so that neither the base alone nor the state of the cut is whole.
  const half = manifest.disks.find(
    (disk) => !disk.merged && disk.pivoted !== true && files.includes(disk.overlay.file),
  );
  if (manifest.state === 'committing' && half !== undefined) {
    const message = `${set} was merged in part, and ${half.overlay.file} holds the rest`;
    throw new UsageError('E_STATE_OF_SET', `${message}: commit it again, the VM started from its overlays`);
  }
  for (const monitor of monitors.open) await unloadOverlays(monitor, manifest);
  for (const file of files) {
    const why = await whyInUse(file, { monitors: monitors.open, claims: [] });
    if (why === undefined) continue;
    throw new UsageError('E_IN_USE', `${file}: ${why}; commit ${set} first, or shut the VM off`);
  }
  return { manifest, files };
}

/** Takes out of QEMU what a tool left that was killed before its cut: open, but no disk's. */
export async function unloadOverlays(hypervisor: Hypervisor, manifest: Manifest): Promise<void> {
  for (const { place, overlayNode } of await layersOf(hypervisor, manifest)) {
    if (place === 'loaded') await hypervisor.forget(overlayNode, undefined);
  }
}

export async function overlaysThere({ disks }: Manifest): Promise<string[]> {
  const files: string[] = [];
  for (const { overlay } of disks) {
    try {
      await stat(overlay.file);
      files.push(overlay.file);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  }
  return files;
}
