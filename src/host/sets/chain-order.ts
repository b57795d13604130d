// Puts sets in order: the older ones are those that others lie on. The clock tells only where no image does: it may
// have been set back, or the sets may come from another machine.
import { fileKey } from '../images/same-file.js';
import type { Manifest } from './manifest.js';
import { isOverlayOver } from './merged-disks.js';

/**
 * Oldest first: a set follows those whose overlays its disks lie on, and those that were merged into their bases; where none
 * of that tells, by the time of the cut.
 */
export async function oldestFirst(manifests: readonly Manifest[]): Promise<Manifest[]> {
  const byTime = [...manifests].sort((a, b) => a.createdAt.localeCompare(b.createdAt));
  const makers = new Map<string, Manifest>();
  const ended = new Map<string, Manifest[]>();
  for (const manifest of byTime) {
    for (const disk of manifest.disks) {
      if (!disk.merged) makers.set(await fileKey(disk.overlay.file), manifest);
      if (!isOverlayOver(manifest, disk)) continue;
      const base = await fileKey(disk.base.file);
      ended.set(base, [...(ended.get(base) ?? []), manifest]);
    }
  }
  const ordered = new Set<Manifest>();
  // A set that is being visited is passed over: files that name each other in a circle must not hang us.
  const visited = new Set<Manifest>();
  const visit = async (manifest: Manifest): Promise<void> => {
    if (visited.has(manifest)) return;
    visited.add(manifest);
    for (const disk of manifest.disks) {
      const { base, below = [] } = disk;
      // While an overlay lies on it, nothing is cut over the base and merged into it.
      const before = isOverlayOver(manifest, disk) ? undefined : ended.get(await fileKey(base.file));
      for (const each of before ?? []) await visit(each);
      for (const { file } of [base, ...below]) {
        const maker = makers.get(await fileKey(file));
        if (maker !== undefined) await visit(maker);
      }
    }
    ordered.add(manifest);
  };
  for (const manifest of byTime) await visit(manifest);
  return [...ordered];
}
