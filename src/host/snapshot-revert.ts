// Back to the state of the cut, with the VM shut off. The bases hold that state and are not touched: what was written
// since lies in the overlays alone, so each overlay is replaced by an empty one over the same base. The set stays, and
// may be reverted to again. A VM that is started from the overlays (as it ran last), or from the bases, is at the cut;
// the manifest keeps saying so.
import { chmod, chown, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CutError, QuiesceError, UsageError } from '../errors.js';
import { throwIfInterrupted, type Confirm } from './confirm.js';
import { syncPath } from './images/durable-file.js';
import { describeHolders, holdersOf, imageInfo, makeOverlay } from './images/image-file.js';
import { Journal, refuseBusy } from './sets/journal.js';
import type { Manifest, ManifestDisk } from './sets/manifest.js';
import type { ManifestStore } from './sets/manifest-store.js';
import { openMonitors } from './vm/monitors.js';
import { newerSets } from './sets/set-state.js';

export interface RevertOptions {
  readonly store: ManifestStore;
  readonly set: string;
  /** The VM's monitor, besides the one the set was made through: nobody may listen at either. */
  readonly qmp: string;
  readonly monitorTimeoutMs: number;
  readonly confirm: Confirm;
  readonly signal: AbortSignal;
}

/**
 * Reverts. Throws a UsageError if the VM is not shut off, a process holds one of the images, newer sets lie above, or the
 * set was never cut or is committed; a QuiesceError if the answer was no, or when interrupted. Nothing was changed in
 * these cases. A CutError that says `reverting` leaves the set in that state: revert again.
 */
export async function revertSnapshot(options: RevertOptions): Promise<Manifest> {
  const { store, set, confirm, signal } = options;
  const { id, createdAt, disks } = await checkRevertable(options);
  const files = disks.map(({ overlay }) => overlay.file).join(', ');
  const question = `Everything the VM wrote since ${createdAt} is lost (${files}). Revert to ${set}?`;
  if (!(await confirm(question))) throw new QuiesceError('E_DECLINED', 'not reverted: the answer was no');
  // While somebody thought about the question the VM may have been started, or another set made.
  const manifest = await checkRevertable(options);
  if (manifest.id !== id) throw new UsageError('E_STATE_OF_SET', `${set} is another set by now: nothing was reverted`);
  const journal = await Journal.begin(store, set, 'revert');
  try {
    await makeDrafts(manifest, signal);
    // From here on some disks may be at the cut and others not: only the rest of the revert makes them one again.
    return await takeDrafts(store, await store.write({ ...manifest, state: 'reverting' }));
  } finally {
    await journal.end();
  }
}

/**
 * The rest of a revert: the drafts of these overlays (all, if not told) take their place. The caller knows that the
 * others did so before, and that nobody uses the files.
 */
export async function takeDrafts(
  store: ManifestStore,
  reverting: Manifest,
  files: readonly string[] = reverting.disks.map(({ overlay }) => overlay.file),
): Promise<Manifest> {
  for (const file of files) await takeDraft(file);
  return await store.write({ ...reverting, state: 'cut', revertedAt: new Date().toISOString() });
}

/** The set as it is now. Throws a UsageError unless it can be reverted to. */
async function checkRevertable({ store, set, qmp, monitorTimeoutMs }: RevertOptions): Promise<Manifest> {
  await refuseBusy(store, set);
  const manifest = await store.read(set);
  if (manifest.state === 'cutting') {
    const message = `whether ${set} was cut is not known: start the VM from what it ran on last, and see "snapshot show"`;
    throw new UsageError('E_STATE_OF_SET', message);
  }
  if (manifest.state !== 'cut' && manifest.state !== 'reverting') {
    throw new UsageError(
      'E_STATE_OF_SET',
      `${set} is ${manifest.state}: expected a set that was cut and not committed`,
    );
  }
  const above = newerSets(manifest, await store.readAllOrRefuse());
  if (above.length > 0) {
    throw new UsageError('E_NEWER_SETS', `newer snapshot sets lie on ${set}: delete ${above.join(', ')} first`);
  }
  await using monitors = await openMonitors([qmp, manifest.vm.qmp], monitorTimeoutMs, store.identity);
  const [running] = monitors.open;
  if (running !== undefined) {
    throw new UsageError('E_VM_RUNS', `the VM runs (monitor ${running.path} answers): shut it off first`);
  }
  for (const disk of manifest.disks) await checkDisk(disk);
  return manifest;
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

/** The empty overlay that is to take the place of `file`. */
export const draftOf = (file: string): string => `${file}.revert`;

// All of them before the first is used: what can fail fails while nothing is changed.
async function makeDrafts({ set, disks }: Manifest, signal: AbortSignal): Promise<void> {
  const begun: string[] = [];
  try {
    for (const disk of disks) {
      throwIfInterrupted(signal, `${set} was not reverted`);
      await makeDraft(disk);
      begun.push(draftOf(disk.overlay.file));
    }
  } catch (cause) {
    for (const draft of begun) await rm(draft, { force: true });
    if (cause instanceof QuiesceError) throw cause;
    throw new CutError('E_REVERT', `not reverted: an empty overlay could not be made`, { cause });
  }
}

async function makeDraft({ base, overlay, virtualSize }: ManifestDisk): Promise<void> {
  const draft = draftOf(overlay.file);
  const { uid, gid, mode } = await stat(overlay.file);
  await makeOverlay({ file: draft, base: base.file, baseFormat: base.format, virtualSize });
  await chown(draft, uid, gid);
  await chmod(draft, mode & 0o777);
  await syncPath(draft);
}

async function takeDraft(file: string): Promise<void> {
  try {
    await rename(draftOf(file), file);
    await syncPath(dirname(file));
  } catch (cause) {
    throw new CutError('E_REVERT', `${file} could not be emptied, the set is reverting: revert again`, { cause });
  }
}
