// Tells what a set is worth now, and where the newest data of its disks is: one answer from its manifest, its journal,
// its files and the VM's block graph, for all who show it or decide by it. The manifest tells what was proved at the
// cut. What became of it since (a merge, a start from other images, a killed tool) is seen here and nowhere else.
import { stat } from 'node:fs/promises';
import { defined } from '../../defined.js';
import { lowestLevel, type ConsistencyLevel } from '../../consistency.js';
import { runQmp } from '../../qmp/commands.js';
import type { Monitor } from '../../qmp/monitor.js';
import { exists } from '../images/durable-file.js';
import { holdsData } from '../images/overlay-data.js';
import { baseDoubts, type BaseDoubt } from './base-state.js';
import { layersOf, type Layer } from './layers.js';
import type { Manifest, ManifestDisk } from './manifest.js';
import { cutIsGone, isOverlayOver } from './merged-disks.js';
import { missingImages } from './missing-images.js';
import { settled } from './set-state.js';

export interface ViewWitnesses {
  /** The VM's monitors; empty if it is shut off, or does not answer. */
  readonly monitors: readonly Monitor[];
  /** False only if it is known that the VM is shut off. */
  readonly isRunning: boolean;
  /** Another process is at the set: what was begun may be going on. */
  readonly isBusy: boolean;
}

type LayerName = 'overlay' | 'base';

export interface DiskView {
  readonly id: string;
  /** The state of the cut is in the base, whole. */
  readonly holdsCut: boolean;
  /** False if that is not known for sure: then it holds it by the record alone, or is not there to be looked at. */
  readonly isCutKnown: boolean;
  /** The level of the cut now: `none` once the base holds it no longer. */
  readonly level: ConsistencyLevel;
  /** The layer that holds the newest state of the disk; undefined if only a person can tell. */
  readonly newest: { readonly layer: LayerName; readonly file: string; readonly format: string } | undefined;
  /** The layer that the running VM uses: the overlay (or a newer one on it), the base alone, or neither. */
  readonly inUse: LayerName | undefined;
  /** Images of the disk that are not there: removed, or on a filesystem that is not mounted. */
  readonly missing: readonly string[];
  /** Why the cut is gone, or not known to be there, and why the newest state is not known. */
  readonly notes: readonly string[];
}

export interface SetView {
  /** The set with its state settled, as it would be recorded. */
  readonly manifest: Manifest;
  /** The lowest of its disks. */
  readonly level: ConsistencyLevel;
  /** In the manifest's order. */
  readonly disks: readonly DiskView[];
  /** Sentences that tell what a person has to know or to do now; empty if all is as it should be. */
  readonly notes: readonly string[];
}

/** Changes nothing. Throws what the monitors and the files throw. */
export async function viewSet(recorded: Manifest, { monitors, isRunning, isBusy }: ViewWitnesses): Promise<SetView> {
  const isOpen = recorded.state === 'creating' || recorded.state === 'cutting';
  const isKnown = !isBusy && (monitors.length > 0 || !isRunning);
  const manifest = isOpen && isKnown ? await settled(monitors, recorded) : recorded;
  const layers: Layer[] = [];
  const changedOver = new Set<ManifestDisk>();
  for (const monitor of monitors) {
    const there = await layersOf(monitor, manifest);
    for (const disk of await withMergeDone(monitor, manifest, there)) changedOver.add(disk);
    layers.push(...there);
  }
  const doubts = await baseDoubts(manifest, layers);
  const disks: DiskView[] = [];
  for (const disk of manifest.disks) {
    const inUse = layerInUse(layers.filter((layer) => layer.disk === disk));
    const base = doubts.get(disk);
    const gone = whyGone(manifest, disk, base);
    const { newest, doubt } = changedOver.has(disk)
      ? { newest: { layer: 'base', file: disk.base.file, format: disk.base.format } as const, doubt: undefined }
      : await newestOf(manifest, disk, inUse, base);
    const unsure = base?.is === 'unknown' && gone === undefined ? base.why : undefined;
    const notes = [gone, unsure, doubt].filter((note) => note !== undefined);
    const holdsCut = gone === undefined;
    const isCutKnown = unsure === undefined && (holdsCut || base?.is !== 'missing');
    const missing = isOverlayOver(manifest, disk) ? [] : await missingImages(disk);
    disks.push({
      ...{ id: disk.id, holdsCut, isCutKnown, level: holdsCut ? disk.level : 'none', newest, inUse },
      ...{ missing, notes },
    });
  }
  const level = lowestLevel(
    disks.map((disk) => disk.level),
    manifest.level,
  );
  return { manifest, level, disks, notes: notesOf(manifest, disks, isKnown, isBusy) };
}

/** Disks that the VM has changed over to their base, by the overlay that is still open or the job that says so. */
async function withMergeDone(monitor: Monitor, { id }: Manifest, layers: readonly Layer[]): Promise<ManifestDisk[]> {
  if (!layers.some(({ disk }) => disk.pivoting === true)) return [];
  const jobs = await runQmp(monitor, 'query-jobs', {});
  return layers
    .filter(({ disk, place, isOnBase }, index) => {
      if (disk.pivoting !== true || !isOnBase) return false;
      const job = jobs.find((each) => each.id === `fsb-commit-${id}-${index}`);
      return place === 'loaded' || (place === 'unused' && job?.status === 'concluded' && job.error === undefined);
    })
    .map(({ disk }) => disk);
}

function layerInUse(layers: readonly Layer[]): LayerName | undefined {
  if (layers.some(({ place }) => place === 'active' || place === 'below')) return 'overlay';
  return layers.some(({ isOnBase }) => isOnBase) ? 'base' : undefined;
}

/** For people: the disks that the VM runs from an image which is not their newest. */
export function startedWrong({ manifest, disks }: SetView): string[] {
  return disks
    .filter(({ inUse, newest }) => inUse === 'base' && newest?.layer !== 'base')
    .map(({ id }) => {
      const { base, overlay } = manifest.disks.find((disk) => disk.id === id) ?? {};
      return `disk ${id} runs on ${base?.file ?? ''}, the base of snapshot set ${manifest.set}: what the VM wrote after the cut is in ${overlay?.file ?? ''}`;
    });
}

/** True if the set is worth less than its record says, for good. */
export function holdsLess({ manifest, disks }: SetView): boolean {
  return manifest.disks.some((disk, index) => {
    const view = disks[index];
    return (
      view !== undefined && isGone(view) && (disk.level !== 'none' || (!isMerged(disk) && disk.lost === undefined))
    );
  });
}

function isMerged({ merged, pivoted }: ManifestDisk): boolean {
  return merged || pivoted === true;
}

/** True if the cut is gone for good: an image that is not there now may be there again. */
function isGone({ holdsCut, isCutKnown }: DiskView): boolean {
  return !holdsCut && isCutKnown;
}

/** The manifest that says of each disk what it is worth now, as far as that is for good. */
export function recordOf({ manifest, disks }: SetView): Manifest {
  const gone = disks.filter(isGone).flatMap(({ notes }) => notes);
  const recorded = manifest.disks.map((disk, index) => {
    const view = disks[index];
    if (view === undefined || !isGone(view)) return disk;
    const [lost] = isMerged(disk) ? [] : view.notes;
    return { ...disk, level: 'none' as const, evidence: [...view.notes], ...defined({ lost }) };
  });
  return {
    ...manifest,
    level: lowestLevel(
      recorded.map(({ level }) => level),
      manifest.level,
    ),
    evidence: [...manifest.evidence, ...gone.filter((note) => !manifest.evidence.includes(note))],
    disks: recorded,
  };
}

/** Why the base does not hold the cut; undefined if it does. */
function whyGone({ state }: Manifest, disk: ManifestDisk, doubt: BaseDoubt | undefined): string | undefined {
  if (state === 'failed' || state === 'creating') return 'it was never cut';
  if (state === 'cutting') return 'whether it was cut is not known';
  if (disk.merged || disk.pivoted === true) return cutIsGone(disk);
  if (state === 'committed') return 'the set was committed: the state of the cut is gone';
  const lost = doubt === undefined || doubt.is === 'unknown' ? undefined : doubt.why;
  // The base is written to from the beginning of its merge on; a record of its state tells whether that was.
  const isBegun = disk.merge === 'begun' || (state === 'committing' && disk.merge === undefined);
  if (lost === undefined && isBegun && disk.base.asCut === undefined) {
    return `its overlay is being merged into ${disk.base.file}, in part at least`;
  }
  return lost;
}

interface Newest {
  readonly newest: DiskView['newest'];
  readonly doubt?: string;
}

async function newestOf(
  { state }: Manifest,
  disk: ManifestDisk,
  inUse: LayerName | undefined,
  baseDoubt: BaseDoubt | undefined,
): Promise<Newest> {
  const { base, overlay, pivoting } = disk;
  const onBase = { newest: { layer: 'base', file: base.file, format: base.format } } as const;
  const onOverlay = { newest: { layer: 'overlay', file: overlay.file, format: overlay.format } } as const;
  if (isOverlayOver({ state }, disk)) return onBase;
  if (state === 'cutting') return { newest: undefined };
  // Some of the overlays are emptied, others are not yet: disks of two moments.
  if (state === 'reverting') return { newest: undefined, doubt: 'reverted in part: revert it again' };
  if (inUse === 'overlay') return onOverlay;
  if (!(await exists(overlay.file))) {
    return { newest: undefined, doubt: `${overlay.file} is not there: it was removed, or is not mounted` };
  }
  const names = `${overlay.file} (written last at ${await writtenAt(overlay.file)}), ${base.file} (at ${await writtenAt(base.file)})`;
  if (pivoting === true) {
    const doubt = `QEMU ended while the VM changed over from overlay to base: the one written last is the newer one: ${names}`;
    return { newest: undefined, doubt };
  }
  if (!(await holdsData(overlay.file))) return inUse === 'base' ? onBase : onOverlay;
  if (state === 'committing') {
    // A base that is merged in part is neither the old state nor the new one.
    const doubt = `the VM runs on ${base.file}, which is merged in part: shut it off, and start it from ${overlay.file}`;
    return inUse === 'base' ? { ...onOverlay, doubt } : onOverlay;
  }
  if (inUse !== 'base' && (baseDoubt === undefined || baseDoubt.is === 'unknown')) return onOverlay;
  if (baseDoubt?.is === 'missing') return { newest: undefined };
  const doubt = `what the VM wrote after the cut is in its overlay, and the base was changed since: each may hold what the other lacks: ${names}`;
  return { newest: undefined, doubt };
}

async function writtenAt(file: string): Promise<string> {
  return await stat(file).then(
    ({ mtime }) => mtime.toISOString(),
    () => 'no time: it is not there',
  );
}

function notesOf(manifest: Manifest, disks: readonly DiskView[], isKnown: boolean, isBusy: boolean): string[] {
  const { state, set } = manifest;
  if (isBusy) return ['another process is at this set'];
  switch (state) {
    case 'creating':
    case 'cutting':
      return isKnown
        ? ['whether the set was cut is not known: overlays of it are not there']
        : ['the VM does not answer: whether the set was cut is not known'];
    case 'committing': {
      if (manifest.pruning === true) return ['it was being pruned: run "snapshot prune" again'];
      if (disks.every(({ newest, inUse }) => newest !== undefined && newest.layer === inUse)) {
        return [`merged in part: commit ${set} again`];
      }
      const files = disks.map(({ id, newest }) => newest?.file ?? `the newer image of disk ${id}`);
      const offline = disks.every(({ inUse }) => inUse === undefined) ? '; or, shut off as it is, with --offline' : '';
      return [`merged in part: start the VM from ${files.join(', ')}, and commit ${set} again${offline}`];
    }
    case 'reverting':
      return [`reverted in part: shut the VM off, and revert ${set} again`];
    case 'deleting':
      return [`deleted in part: delete ${set} again`];
    case 'cut':
    case 'committed':
    case 'failed':
      return [];
  }
}
