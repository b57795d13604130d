// Bases that no longer hold the state of their cut, since a VM was started from them again and wrote: the label of their
// set must not go on saying that they do. The VM tells, while it runs; later the time of the last write does, compared
// with the first thing known to be newer than the cut: what was written to an overlay.
import { stat } from 'node:fs/promises';
import { lowestLevel } from '../../consistency.js';
import type { Layer } from './layers.js';
import type { Manifest, ManifestDisk } from './manifest.js';
import { holdsData } from '../images/overlay-data.js';
import { fileState, isSameState } from './as-cut.js';

const lost = 'the VM was started from this base again and wrote to it: it no longer holds the state of the cut';

/**
 * The set with what it is worth now; undefined if no base was lost that it does not know of. Without layers (the VM is
 * shut off) only the files are asked.
 */
export async function withoutLostBases(manifest: Manifest, layers: readonly Layer[]): Promise<Manifest | undefined> {
  const files = new Set(layers.filter(isWrittenTo).map(({ disk }) => disk.base.file));
  for (const disk of await writtenAfterwards(manifest)) files.add(disk.base.file);
  const isFresh = ({ base, level, evidence }: ManifestDisk): boolean =>
    files.has(base.file) && !(level === 'none' && evidence.includes(lost));
  if (!manifest.disks.some(isFresh)) return undefined;
  const disks = manifest.disks.map((disk) =>
    files.has(disk.base.file) ? { ...disk, level: 'none' as const, evidence: [lost] } : disk,
  );
  const level = lowestLevel(
    disks.map((disk) => disk.level),
    manifest.level,
  );
  return {
    ...manifest,
    disks,
    level,
    evidence: [...manifest.evidence, ...[...files].map((file) => `${file}: ${lost}`)],
  };
}

function isWrittenTo({ disk, place, vmDisk }: Layer): boolean {
  if (place !== 'unused' && place !== 'loaded') return false;
  if (disk.pivoted === true || disk.merged) return false;
  return vmDisk?.file === disk.base.file && !vmDisk.readOnly;
}

// A base takes no write after the cut, an overlay none before it. Only times of one filesystem are compared: another
// may be kept by another machine's clock.
async function writtenAfterwards({ disks }: Manifest): Promise<ManifestDisk[]> {
  const cutBefore = new Map<number, number>();
  for (const { overlay } of disks) {
    if (!(await holdsData(overlay.file))) continue;
    const { dev, mtimeMs } = await stat(overlay.file);
    cutBefore.set(dev, Math.min(mtimeMs, cutBefore.get(dev) ?? Infinity));
  }
  const found: ManifestDisk[] = [];
  for (const disk of disks) {
    // What `prune` does to the header of a base is no write of a VM.
    if (disk.rebasing === true) continue;
    if (disk.pivoted === true || disk.merged || disk.base.file.startsWith('/dev/')) continue;
    if (disk.base.asCut !== undefined) {
      const now = await fileState(disk.base.file);
      if (now !== undefined && !isSameState(now, disk.base.asCut)) found.push(disk);
      continue;
    }
    const base = await stat(disk.base.file).catch(() => undefined);
    const limitMs = base === undefined ? undefined : cutBefore.get(base.dev);
    if (base !== undefined && limitMs !== undefined && base.mtimeMs > limitMs) found.push(disk);
  }
  return found;
}
