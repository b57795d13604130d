// `snapshot revert`: goes back to the state of the cut, with the VM shut off. The bases hold that state and are not
// touched: what was written since lies in the overlays alone, so each overlay is replaced by an empty one over the same
// base. The set stays, and may be reverted to again. A VM that is started from the overlays (as it ran last), or from
// the bases, is at the cut; the manifest keeps saying so.
import { chmod, chown, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CutError, QuiesceError, UsageError } from '../errors.js';
import { throwIfInterrupted, type Confirm } from '../confirm.js';
import { syncPath } from './images/durable-file.js';
import { fileStateOf } from './images/file-state.js';
import { sameFile } from './images/same-file.js';
import { describeHolders, holdersOf, makeOverlay } from './images/image-file.js';
import { backingOf } from './images/references.js';
import { whyInUse, type UseWitnesses } from './images/use.js';
import { baseDoubts, type BaseDoubt } from './sets/base-state.js';
import { witnessesFor } from './sets/claims.js';
import { baseNameOf, whySecret } from './sets/disk-layers.js';
import { Journal, refuseBusy } from './sets/journal.js';
import { monitorOf, type Manifest, type ManifestDisk } from './sets/manifest.js';
import type { ManifestStore } from './sets/manifest-store.js';
import { definitionAt } from './vm/definition.js';
import { placeNow } from './vm/identity.js';
import type { Place } from './vm/place.js';
import { openMonitors } from './vm/monitors.js';
import { newerSets } from './sets/set-state.js';

export interface RevertOptions {
  readonly store: ManifestStore;
  readonly stateDir: string;
  readonly set: string;
  /** The VM's monitor, besides the one the set was made through: nobody may listen at either. */
  readonly monitor: Place;
  readonly monitorTimeoutMs: number;
  readonly confirm: Confirm;
  readonly signal: AbortSignal;
}

/**
 * Reverts. Throws a UsageError if the VM is not shut off, somebody needs one of the overlays, newer sets lie above, a disk
 * is encrypted, a base holds the cut no longer, or the set was never cut or is committed, be it in part; a QuiesceError if
 * the answer was no, or when interrupted. Whoever is asked is told of a base of which nobody knows. Nothing was changed in these cases. A CutError that says `reverting` leaves the set in that state: revert
 * again.
 */
export async function revertSnapshot(options: RevertOptions): Promise<Manifest> {
  const { store, set, confirm, signal } = options;
  await refuseBusy(store, set);
  const asked = await checkRevertable(options);
  const { id, createdAt, disks } = asked;
  const files = disks.map(({ overlay }) => overlay.file).join(', ');
  const doubts = (await doubtsOf(asked)).map(({ why }) => `${why}. `).join('');
  const question = `${doubts}Everything the VM wrote since ${createdAt} is lost (${files}). Revert to ${set}?`;
  if (!(await confirm(question))) throw new QuiesceError('E_DECLINED', 'not reverted: the answer was no');
  const journal = await Journal.begin(store, set, 'revert');
  try {
    // While somebody thought about the question the VM may have been started, or another set made.
    const manifest = await checkRevertable(options);
    if (manifest.id !== id)
      throw new UsageError('E_STATE_OF_SET', `${set} is another set by now: nothing was reverted`);
    const drafted = await makeDrafts(manifest, signal);
    // From here on some disks may be at the cut and others not: only the rest of the revert makes them one again.
    return await takeDrafts(store, await store.write({ ...manifest, state: 'reverting', disks: drafted }));
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
async function checkRevertable(options: RevertOptions): Promise<Manifest> {
  const { store, stateDir, set, monitor, monitorTimeoutMs } = options;
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
  const above = await newerSets(manifest, await store.readAllOrRefuse());
  if (above.length > 0) {
    throw new UsageError('E_NEWER_SETS', `newer snapshot sets lie on ${set}: delete ${above.join(', ')} first`);
  }
  await using monitors = await openMonitors([monitor, monitorOf(manifest)], monitorTimeoutMs, store.identity);
  const [running] = monitors.open;
  if (running !== undefined) {
    throw new UsageError('E_VM_RUNS', `the VM runs (monitor ${running.path} answers): shut it off first`);
  }
  const witnesses = await witnessesFor(
    stateDir,
    manifest,
    [],
    await definitionAt(placeNow(monitorOf(manifest), store.identity)).savedState(),
  );
  for (const disk of manifest.disks) await checkDisk(disk, witnesses);
  for (const { is, why } of await doubtsOf(manifest)) {
    if (is === 'missing') throw new UsageError('E_NO_IMAGE', `${why}: nothing was reverted`);
    if (is === 'unknown') continue;
    throw new UsageError('E_BASE_LOST', `${why}: nothing was reverted; "snapshot delete" drops the overlays`);
  }
  return manifest;
}

/**
 * The doubts about the bases. Once some overlays are emptied, only the rest of the revert makes the disks one state
 * again.
 */
async function doubtsOf(manifest: Manifest): Promise<BaseDoubt[]> {
  return manifest.state === 'cut' ? [...(await baseDoubts(manifest, [])).values()] : [];
}

async function checkDisk(disk: ManifestDisk, witnesses: UseWitnesses): Promise<void> {
  const { id, base, overlay } = disk;
  if (disk.merged || disk.merge === 'begun' || disk.pivoting === true || disk.pivoted === true) {
    const message = `disk ${id}: its overlay is merged back, or was in part: the state of the cut is gone`;
    throw new UsageError('E_STATE_OF_SET', message);
  }
  const secret = await whySecret(disk);
  if (secret !== undefined) {
    const why = `disk ${id}: ${secret}, and only QEMU, with its secret, can make an empty overlay of it`;
    throw new UsageError(
      'E_ENCRYPTED',
      `${why}: delete the set, and start the VM from ${base.file}, which holds the cut`,
    );
  }
  // Whoever has the base open may be the VM, started from it.
  const holders = await holdersOf(base.file);
  if (holders.length > 0)
    throw new UsageError('E_IN_USE', `disk ${id}: ${base.file} is in use by ${describeHolders(holders)}`);
  await stat(base.file).catch((cause: unknown) => {
    throw new UsageError('E_NO_IMAGE', `disk ${id}: base ${base.file} cannot be found`, { cause });
  });
  const use = await whyInUse([overlay.file], witnesses);
  if (use !== undefined) throw new UsageError('E_IN_USE', `disk ${id}: ${use.file}: ${use.why}`);
  const backing = await backingOf(overlay.file).catch((cause: unknown) => {
    throw new UsageError('E_NO_IMAGE', `disk ${id}: overlay ${overlay.file} cannot be read`, { cause });
  });
  if (backing !== undefined && (await sameFile(backing, base.file))) return;
  throw new UsageError(
    'E_NO_IMAGE',
    `disk ${id}: ${overlay.file} lies on ${backing ?? 'nothing'}, expected ${base.file}`,
  );
}

/** The empty overlay that is to take the place of `file`. */
export const draftOf = (file: string): string => `${file}.revert`;

// All of them before the first is used: what can fail fails while nothing is changed. Gives the disks with what their
// overlays are to be.
async function makeDrafts({ set, disks }: Manifest, signal: AbortSignal): Promise<ManifestDisk[]> {
  const begun: string[] = [];
  const drafted: ManifestDisk[] = [];
  try {
    for (const disk of disks) {
      throwIfInterrupted(signal, `${set} was not reverted`);
      await makeDraft(disk);
      const draft = draftOf(disk.overlay.file);
      begun.push(draft);
      drafted.push({ ...disk, overlay: { ...disk.overlay, asCut: await fileStateOf(draft) } });
    }
    return drafted;
  } catch (cause) {
    for (const draft of begun) await rm(draft, { force: true });
    if (cause instanceof QuiesceError) throw cause;
    throw new CutError('E_REVERT', `not reverted: an empty overlay could not be made`, { cause });
  }
}

async function makeDraft(disk: ManifestDisk): Promise<void> {
  const { base, overlay, virtualSize } = disk;
  const draft = draftOf(overlay.file);
  const { uid, gid, mode } = await stat(overlay.file);
  await makeOverlay({ file: draft, base: await baseNameOf(disk), baseFormat: base.format, virtualSize });
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
