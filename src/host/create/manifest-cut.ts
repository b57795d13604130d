// The manifest of a set once its disks are cut: the worth of each, what really lies below its overlay, how the files
// are now, and when each step was. Only puts it together; record-set.ts writes it.
import { isAbsolute } from 'node:path';
import { defined } from '../../defined.js';
import { lowestLevel } from '../../consistency.js';
import type { Overlay } from '../vm/overlay.js';
import { crashOnly, levelsOf, type CutDisk, type SetWorth } from '../guest/level.js';
import type { HeldCut } from './held-cut.js';
import { clip } from '../guest/clip.js';
import { fileStateOf, type FileState } from '../images/file-state.js';
import type { Manifest, ManifestDisk, ManifestLayer } from '../sets/manifest.js';
import type { CutFinding } from './cut.js';
import type { OverlayFinding } from './overlay-cut.js';
import { cutPoint, type PointFacts } from './point-draft.js';

/** The worth of the disks by the guest's report alone. */
export function worthOf({ report, doubt }: HeldCut, disks: readonly CutDisk[]): SetWorth {
  if (report === undefined || doubt !== undefined) return crashOnly(disks, doubt ?? 'the guest was not held');
  return levelsOf(report, disks);
}

/** The worth once it is known whether what was cut is what was planned. */
export function compared(worth: SetWorth, findings: readonly CutFinding[], names: readonly string[]): SetWorth {
  const disks = worth.disks.map((disk, index) => {
    const { doubt, isLost = false } = findings[index] ?? {};
    if (doubt === undefined) return disk;
    const level = lowestLevel([disk.level], isLost ? 'none' : 'crash');
    return { level, evidence: [...disk.evidence, clip(doubt)] };
  });
  const doubts = findings.flatMap(({ doubt }, index) =>
    doubt === undefined ? [] : [clip(`disk ${names[index] ?? ''}: ${doubt}`)],
  );
  const level = lowestLevel(
    disks.map((disk) => disk.level),
    worth.level,
  );
  return { level, evidence: [...worth.evidence, ...doubts], disks };
}

/** The disks of a draft, cut. */
export async function cutDisks(
  draft: Manifest,
  overlays: readonly Overlay[],
  findings: readonly OverlayFinding[],
  worth: SetWorth,
): Promise<ManifestDisk[]> {
  return await Promise.all(
    draft.disks.map(async (disk, index) => {
      const { level, evidence } = worth.disks[index] ?? { level: 'crash', evidence: [] };
      const [base = disk.base, ...below] = findings[index]?.chain ?? [disk.base, ...(disk.below ?? [])];
      const planned = overlays[index]?.disk;
      const isPlanned = base.file === planned?.file;
      return {
        ...disk,
        base: await asCut(isPlanned ? { ...disk.base, format: base.format } : base),
        overlay: await asCut(disk.overlay),
        below: await Promise.all(below.map(asCut)),
        ...(disk.dataFiles === undefined ? {} : { dataFilesAsCut: await statesOf(disk.dataFiles) }),
        level,
        evidence: [...evidence],
      };
    }),
  );
}

interface CutFacts extends PointFacts {
  readonly disks: ManifestDisk[];
}

/** The draft, with all that is known after the cut. `steps` and `monitorLog` may grow until it is written. */
export function manifestOfCut(draft: Manifest, facts: CutFacts): Manifest {
  const { held, disks } = facts;
  return {
    ...draft,
    state: 'cut',
    ...cutPoint(draft.asked, facts),
    disks,
    ...(held.thawError === undefined ? {} : { error: clip(held.thawError.message) }),
  };
}

async function asCut(layer: ManifestLayer): Promise<ManifestLayer> {
  // A file that cannot be looked at from here is not recorded.
  const state = await fileStateOf(layer.file).catch(() => undefined);
  return { ...layer, ...defined({ asCut: state }) };
}

// A relative name whose folder is not known is not recorded either.
async function statesOf(files: readonly string[]): Promise<Record<string, FileState>> {
  const found = files.filter(isAbsolute).map(async (file) => {
    const state = await fileStateOf(file).catch(() => undefined);
    return state === undefined ? [] : [[file, state] as const];
  });
  return Object.fromEntries((await Promise.all(found)).flat());
}
