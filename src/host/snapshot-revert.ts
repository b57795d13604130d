// Back to the state of the cut, with the VM shut off. The bases hold that state and are not touched: what was written
// since lies in the overlays alone, so each overlay is replaced by an empty one over the same base. The set stays, and
// may be reverted to again. A VM that is started from the overlays (as it ran last), or from the bases, is at the cut;
// the manifest keeps saying so.
import { chmod, chown, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CutError, QuiesceError, UnreachableError, UsageError } from '../errors.js';
import { QmpClient } from '../qmp/client.js';
import type { Confirm } from './confirm.js';
import { syncPath } from './durable-file.js';
import { describeHolders, holdersOf, imageInfo, makeOverlay } from './image-file.js';
import type { Manifest, ManifestDisk } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { newerSets } from './set-state.js';

export interface RevertOptions {
  readonly store: ManifestStore;
  readonly set: string;
  readonly monitorTimeoutMs: number;
  readonly confirm: Confirm;
}

/**
 * Reverts. Throws a UsageError if the VM is not shut off, a process holds one of the images, newer sets lie above, or the
 * set was never cut or is committed; a QuiesceError if the answer was no. Nothing was changed in these cases.
 */
export async function revertSnapshot(options: RevertOptions): Promise<Manifest> {
  const { store, set, confirm } = options;
  const manifest = await store.read(set);
  if (manifest.state !== 'cut' && manifest.state !== 'cutting') {
    throw new UsageError(
      'E_STATE_OF_SET',
      `${set} is ${manifest.state}: expected a set that was cut and not committed`,
    );
  }
  const above = newerSets(manifest, (await store.readAll()).manifests);
  if (above.length > 0) {
    throw new UsageError('E_NEWER_SETS', `newer snapshot sets lie on ${set}: delete ${above.join(', ')} first`);
  }
  await requireShutOff(manifest.vm.qmp, options.monitorTimeoutMs);
  for (const disk of manifest.disks) await checkDisk(disk);
  const files = manifest.disks.map(({ overlay }) => overlay.file).join(', ');
  const question = `Everything the VM wrote since ${manifest.createdAt} is lost (${files}). Revert to ${set}?`;
  if (!(await confirm(question))) throw new QuiesceError('E_DECLINED', 'not reverted: the answer was no');
  for (const disk of manifest.disks) await emptyOverlay(disk);
  return await store.write({ ...manifest, state: 'cut', revertedAt: new Date().toISOString() });
}

/** Throws a UsageError if anything answers on the monitor. */
async function requireShutOff(qmp: string, timeoutMs: number): Promise<void> {
  let client: QmpClient;
  try {
    client = await QmpClient.connect(qmp, { timeoutMs });
  } catch (error) {
    // Nobody there: shut off. Somebody who does not greet: in use, so running.
    if (error instanceof UnreachableError && error.code === 'E_MONITOR') return;
    throw error;
  }
  client.close();
  throw new UsageError('E_VM_RUNS', `the VM runs (monitor ${qmp} answers): shut it off first`);
}

async function checkDisk({ id, base, overlay }: ManifestDisk): Promise<void> {
  for (const file of [base.file, overlay.file]) {
    const holders = await holdersOf(file);
    if (holders.length > 0)
      throw new UsageError('E_IN_USE', `disk ${id}: ${file} is in use by ${describeHolders(holders)}`);
  }
  await stat(base.file).catch((cause: unknown) => {
    throw new UsageError('E_NO_IMAGE', `disk ${id}: base ${base.file} cannot be found`, { cause });
  });
  const info = await imageInfo(overlay.file);
  if (info['backing-filename'] === base.file) return;
  throw new UsageError(
    'E_NO_IMAGE',
    `disk ${id}: ${overlay.file} lies on ${info['backing-filename'] ?? 'nothing'}, expected ${base.file}`,
  );
}

// Beside it and renamed: whatever is interrupted, the overlay is the old one or an empty one.
async function emptyOverlay({ base, overlay, virtualSize }: ManifestDisk): Promise<void> {
  const draft = `${overlay.file}.revert`;
  try {
    const { uid, gid, mode } = await stat(overlay.file);
    await makeOverlay({ file: draft, base: base.file, baseFormat: base.format, virtualSize });
    await chown(draft, uid, gid);
    await chmod(draft, mode & 0o777);
    await syncPath(draft);
    await rename(draft, overlay.file);
    await syncPath(dirname(overlay.file));
  } catch (cause) {
    await rm(draft, { force: true });
    throw new CutError('E_REVERT', `${overlay.file} could not be emptied; revert again`, { cause });
  }
}
