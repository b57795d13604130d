// Which sets are older: those that others lie on. The clock tells only where no image does: it may have been set back, or the
// sets may come from another machine.
import { fileKey } from '../images/same-file.js';
import type { Manifest } from './manifest.js';

/** Oldest first: a set follows those whose overlays its disks lie on; where none lies on the other, by the time of the cut. */
export async function oldestFirst(manifests: readonly Manifest[]): Promise<Manifest[]> {
  const byTime = [...manifests].sort((a, b) => a.createdAt.localeCompare(b.createdAt));
  const makers = new Map<string, Manifest>();
  for (const manifest of byTime) {
    for (const { overlay, merged } of manifest.disks) if (!merged) makers.set(await fileKey(overlay.file), manifest);
  }
  const ordered = new Set<Manifest>();
  // What is being visited is passed over: files that name each other in a circle must not hang us.
  const visited = new Set<Manifest>();
  const visit = async (manifest: Manifest): Promise<void> => {
    if (visited.has(manifest)) return;
    visited.add(manifest);
    for (const { base, below = [] } of manifest.disks) {
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
