// Takes from a set what a merge took: once the base holds all of the overlay, the cut in it is gone for good.
import { lowestLevel } from '../../consistency.js';
import type { Manifest, ManifestDisk } from './manifest.js';

/** For people. */
export function cutIsGone({ base }: ManifestDisk): string {
  return `its overlay was merged into ${base.file}: the state of the cut is gone`;
}

/** True if nothing is in the disk's overlay that is to be kept, now or soon: the base holds the newest. */
export function isOverlayOver({ state }: Pick<Manifest, 'state'>, { merged, pivoted }: ManifestDisk): boolean {
  if (merged || pivoted === true) return true;
  return state === 'creating' || state === 'committed' || state === 'failed' || state === 'deleting';
}

/** The set with its level, and that of each disk that was merged, as they are from then on. */
export function withMergesCounted(manifest: Manifest): Manifest {
  const disks = manifest.disks.map((disk) => {
    const isMerged = disk.merged || disk.pivoted === true;
    return isMerged ? { ...disk, level: 'none' as const, evidence: [cutIsGone(disk)] } : disk;
  });
  const level = lowestLevel(
    disks.map((disk) => disk.level),
    manifest.level,
  );
  return { ...manifest, level, disks };
}
