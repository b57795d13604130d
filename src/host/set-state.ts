// What became of a set whose maker was killed after its transaction may have been sent: the VM knows. Also which newer
// sets lie above a set.
import type { QmpClient } from '../qmp/client.js';
import type { Manifest } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { layersOf, type Layer } from './layers.js';

/**
 * The manifest with its state settled: `cutting` becomes `cut` (level crash: nobody proved more) if the VM writes to
 * the overlays, else `failed`. Written back. Others are given back as they are, and so are all if no monitor answers.
 */
export async function settleState(
  monitors: readonly QmpClient[],
  store: ManifestStore,
  manifest: Manifest,
): Promise<Manifest> {
  if (manifest.state !== 'cutting' && manifest.state !== 'creating') return manifest;
  return monitors.length === 0 ? manifest : await store.write(await settle(monitors, manifest));
}

async function settle(monitors: readonly QmpClient[], manifest: Manifest): Promise<Manifest> {
  const layers: Layer[] = [];
  for (const monitor of monitors) layers.push(...(await layersOf(monitor, manifest)));
  const used = layers.filter(({ place }) => place === 'active' || place === 'below');
  if (used.length === 0) {
    const error = 'the tool that made this set ended before the cut: nothing was cut';
    return { ...manifest, state: 'failed', level: 'none', error };
  }
  const reason = 'the tool that made this set ended before it could record what the guest proved';
  const evidence = [`all ${manifest.disks.length} disks were cut in one transaction`, reason];
  const disks = manifest.disks.map((disk) => ({ ...disk, level: 'crash' as const, evidence: [reason] }));
  return { ...manifest, state: 'cut', level: 'crash', evidence, disks };
}

/** Sets of which a disk lies on a layer of this one: they must go first. */
export function newerSets(manifest: Manifest, all: readonly Manifest[]): string[] {
  const own = new Set(manifest.disks.filter(({ merged }) => !merged).map(({ overlay }) => overlay.file));
  return all
    .filter(({ id, state }) => id !== manifest.id && state !== 'committed' && state !== 'failed')
    .filter(({ disks }) => disks.some(({ base, merged }) => !merged && own.has(base.file)))
    .map(({ set }) => set);
}
