// Settles what became of a set whose maker was killed after its transaction may have been sent: the VM knows, or the
// overlays do. Also tells which newer sets lie on a set.
import { UsageError } from '../../errors.js';
import type { Monitor } from '../../qmp/monitor.js';
import type { Manifest } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { layersOf, type Layer } from './layers.js';
import { missingOverlays } from './missing-images.js';
import { withData } from '../images/overlay-data.js';
import { fileKey } from '../images/same-file.js';

/**
 * The manifest with its state settled: `cutting` becomes `cut` (level crash: nobody proved more) if the VM writes to
 * the overlays, or if they hold what it wrote before it was started from other images; else `failed`. Written back:
 * the caller holds the VM's lock. Others are given back as they are, and so are all if no monitor answers.
 */
export async function settleState(
  monitors: readonly Monitor[],
  store: ManifestStore,
  manifest: Manifest,
): Promise<Manifest> {
  if (manifest.state !== 'cutting' && manifest.state !== 'creating') return manifest;
  if (monitors.length === 0) return manifest;
  const after = await settled(monitors, manifest);
  return after === manifest ? manifest : await store.write(after);
}

/**
 * `settleState`, but not written. Without a monitor the files decide, which must be nobody's then. An overlay has clusters of
 * its own only if a VM wrote to it, and it did that only after the cut. As it is, if an overlay is not there and nobody knows
 * that it was removed: what a VM wrote may be in it.
 */
export async function settled(monitors: readonly Monitor[], manifest: Manifest): Promise<Manifest> {
  const layers: Layer[] = [];
  for (const monitor of monitors) layers.push(...(await layersOf(monitor, manifest)));
  if (layers.some(({ place }) => place === 'active' || place === 'below')) return cut(manifest, []);
  const written = await withData(manifest.disks.map(({ overlay }) => overlay.file));
  if (written.length > 0) return cut(manifest, written);
  if ((await missingOverlays(manifest)).unseen.length > 0) return manifest;
  const error = 'the tool that made this set ended before the cut: nothing was cut';
  return { ...manifest, state: 'failed', level: 'none', error };
}

const NOT_RECORDED = 'the tool that made this set ended before it could record what the guest proved';

function cut(manifest: Manifest, written: readonly string[]): Manifest {
  const evidence = [
    `all ${manifest.disks.length} disks were cut in one transaction`,
    NOT_RECORDED,
    ...(written.length === 0 ? [] : [`what the VM wrote after the cut is in ${written.join(', ')}`]),
  ];
  const disks = manifest.disks.map((disk) => ({ ...disk, level: 'crash' as const, evidence: [NOT_RECORDED] }));
  return { ...manifest, state: 'cut', level: 'crash', evidence, disks };
}

/**
 * Throws a UsageError if a commit ended when a disk had changed over, and QEMU still has its overlay: it would refuse the
 * cut with the guest held.
 */
export async function refuseHalfCommitted(monitor: Monitor, manifests: readonly Manifest[]): Promise<void> {
  for (const manifest of manifests) {
    if (!manifest.disks.some(({ merged, pivoting, pivoted }) => !merged && (pivoting === true || pivoted === true)))
      continue;
    const layers = await layersOf(monitor, manifest);
    if (!layers.some(({ disk, place }) => !disk.merged && place === 'loaded')) continue;
    throw new UsageError('E_UNFINISHED', `${manifest.set} is merged in part: run "recover" first; nothing was cut`);
  }
}

/** Sets of which a disk lies on a layer of this one, however they spell it: they must go first. */
export async function newerSets(manifest: Manifest, all: readonly Manifest[]): Promise<string[]> {
  const overlays = manifest.disks.filter(({ merged }) => !merged).map(({ overlay }) => fileKey(overlay.file));
  const own = new Set(await Promise.all(overlays));
  const newer: string[] = [];
  for (const { id, set, state, disks } of all) {
    if (id === manifest.id || state === 'committed' || state === 'failed') continue;
    const bases = disks.filter(({ merged }) => !merged).map(({ base }) => fileKey(base.file));
    if ((await Promise.all(bases)).some((key) => own.has(key))) newer.push(set);
  }
  return newer;
}
