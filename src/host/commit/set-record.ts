// Reads and ends the record of a set that is committed: whether it may be, which of its disks are meant, and what each
// of them is in the end.
import { UsageError } from '../../errors.js';
import type { Manifest, ManifestDisk } from '../sets/manifest.js';
import type { Step } from './way.js';

/** Names of disks; or those of a commit that was begun and ended. */
export type DiskSelection = readonly string[] | 'begun';

export function checkState({ set, state }: Manifest): void {
  if (state === 'committed') throw new UsageError('E_STATE_OF_SET', `${set} was committed before`);
  if (state === 'failed') throw new UsageError('E_STATE_OF_SET', `${set} was never cut: delete it`);
  if (state === 'reverting') throw new UsageError('E_STATE_OF_SET', `${set} is reverted in part: revert it again`);
  if (state === 'deleting') throw new UsageError('E_STATE_OF_SET', `${set} is deleted in part: delete it again`);
  if (state === 'cut' || state === 'committing') return;
  throw new UsageError('E_STATE_OF_SET', `whether ${set} was cut is not known: run "recover", with the VM started`);
}

/** Marks the disks of a commit that an older version of this tool began: each may be merged in part. */
export function withMarks(manifest: Manifest): Manifest {
  const { state, disks } = manifest;
  if (state !== 'committing' || disks.some(({ merge }) => merge !== undefined)) return manifest;
  return { ...manifest, disks: disks.map((disk) => (disk.merged ? disk : { ...disk, merge: 'begun' as const })) };
}

/** The set after a commit that ended by itself: a disk that was only asked for is as it was. */
export function atEnd(manifest: Manifest): Manifest {
  const disks = manifest.disks.map(({ merge, ...disk }) => ({
    ...disk,
    ...(merge === undefined || (merge === 'asked' && !disk.merged) ? {} : { merge }),
  }));
  if (disks.every(({ merged }) => merged)) return { ...manifest, disks, state: 'committed' };
  const isInPart = disks.some(
    ({ merged, merge, pivoting, pivoted }) => !merged && (merge === 'begun' || pivoting === true || pivoted === true),
  );
  return { ...manifest, disks, state: isInPart ? 'committing' : 'cut' };
}

/**
 * Indexes of the disks that are meant, in the set's order. Throws a UsageError for a name that fits none or several.
 */
export function chooseDisks({ set, disks }: Manifest, named: DiskSelection | undefined): number[] {
  const indexes = disks.map((_disk, index) => index);
  if (named === undefined) return indexes;
  if (named === 'begun') return indexes.filter((index) => disks[index]?.merge !== undefined);
  const wanted = named.map((name) => {
    const found = indexes.filter((index) => namesOf(diskAt({ set, disks }, index)).includes(name));
    const [only] = found;
    if (only !== undefined && found.length === 1) return only;
    const there = disks.map(({ id, base }) => `${id} (${base.file})`).join(', ');
    const what = found.length === 0 ? 'fits no disk' : `fits ${found.length} disks`;
    throw new UsageError('E_DISK', `--disk ${JSON.stringify(name)} ${what} of ${set}; expected one of: ${there}`);
  });
  return indexes.filter((index) => wanted.includes(index));
}

function namesOf({ id, device, serial, qdev, base, overlay }: ManifestDisk): string[] {
  const names = [id, device, serial, qdev, base.node, base.file, overlay.node, overlay.file];
  return names.filter((name): name is string => name !== undefined && name !== '');
}

export function diskAt({ set, disks }: Pick<Manifest, 'set' | 'disks'>, index: number): ManifestDisk {
  const disk = disks[index];
  if (disk === undefined) throw new Error(`${set} has no disk ${index}`);
  return disk;
}

export function whyNot(step: Step | undefined): string[] {
  return step?.step === 'cannot' ? [step.why ?? 'it cannot be merged'] : [];
}

export function reasons({ disks }: Manifest, left: ReadonlyMap<number, string>): string {
  return [...left].map(([index, why]) => `disk ${disks[index]?.id ?? index}: ${why}${inPart(disks[index])}`).join('; ');
}

function inPart(disk: ManifestDisk | undefined): string {
  if (disk === undefined || disk.merged) return '';
  if (disk.pivoted === true) return ' (its base holds all of it)';
  return disk.merge === 'begun' ? ' (it may be merged in part: commit it again)' : '';
}
