// Removes a set and what belongs to it, if nobody uses it: the manifest, and overlays that no VM writes to and no newer
// set lies on. Never touches a base.
import { rm, stat } from 'node:fs/promises';
import { QuiesceError, UsageError } from '../errors.js';
import type { QmpClient } from '../qmp/client.js';
import { runQmp } from '../qmp/commands.js';
import type { Confirm } from './confirm.js';
import { isErrno } from './errno.js';
import { describeHolders, holdersOf } from './image-file.js';
import { layersOf } from './layers.js';
import type { Manifest } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { newerSets, settleState } from './set-state.js';

export interface DeleteOptions {
  readonly store: ManifestStore;
  readonly set: string;
  /** The VM's monitor; undefined if it is shut off. */
  readonly monitor: QmpClient | undefined;
  /** Asked only if something the VM wrote is lost. */
  readonly confirm: Confirm;
}

/**
 * Deletes; gives the files removed. Throws a UsageError if a VM or a newer set uses one of the overlays, a QuiesceError if
 * the answer was no. Nothing was changed in these cases.
 */
export async function deleteSnapshot({ store, set, monitor, confirm }: DeleteOptions): Promise<readonly string[]> {
  const read = await store.read(set);
  const manifest = monitor === undefined ? read : await settleState(monitor, store, read);
  const above = newerSets(manifest, (await store.readAll()).manifests);
  if (above.length > 0) {
    throw new UsageError(
      'E_NEWER_SETS',
      `newer snapshot sets lie on ${set}: ${above.join(', ')}; delete or commit them first`,
    );
  }
  if (monitor !== undefined) await unloadOverlays(monitor, manifest);
  const files = await overlaysThere(manifest);
  for (const file of files) {
    const holders = await holdersOf(file);
    if (holders.length === 0) continue;
    const who = describeHolders(holders);
    throw new UsageError('E_IN_USE', `${file} is in use by ${who}: commit ${set} first, or shut the VM off`);
  }
  if (files.length > 0 && manifest.state !== 'failed' && manifest.state !== 'creating') {
    const question = `Everything the VM wrote since ${manifest.createdAt} is lost (${files.join(', ')}). Delete ${set}?`;
    if (!(await confirm(question))) throw new QuiesceError('E_DECLINED', 'not deleted: the answer was no');
  }
  for (const file of files) await rm(file);
  await store.remove(set);
  return files;
}

// Left in QEMU by a tool that was killed before its cut: open, but no disk's.
async function unloadOverlays(monitor: QmpClient, manifest: Manifest): Promise<void> {
  for (const { place, overlayNode } of await layersOf(monitor, manifest)) {
    if (place !== 'loaded' || overlayNode === undefined) continue;
    await runQmp(monitor, 'blockdev-del', { 'node-name': overlayNode });
  }
}

async function overlaysThere({ disks }: Manifest): Promise<string[]> {
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
