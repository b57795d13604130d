// Looks at the sets of a VM as they are worth now, for `snapshot list` and `snapshot show`. Only reads.
import { readJournal } from './sets/journal.js';
import { monitorOf, type Manifest } from './sets/manifest.js';
import type { ManifestStore } from './sets/manifest-store.js';
import { viewSet, type SetView } from './sets/set-view.js';
import { tryMonitors } from './vm/monitors.js';
import { isSomewhere, type Place } from './vm/place.js';

/** Views of the manifests, in their order, by `monitor` and the monitors that the sets were made through. */
export async function viewSnapshots(
  store: ManifestStore,
  manifests: readonly Manifest[],
  monitor: Place,
  monitorTimeoutMs: number,
): Promise<SetView[]> {
  const busy = new Set<string>();
  for (const { set } of manifests) {
    const journal = await readJournal(store.journalFile(set));
    if (journal !== undefined && journal.owner !== 'gone') busy.add(set);
  }
  // Who works on a set has the monitor, which serves one client at a time.
  const ways = busy.size > 0 ? [] : [monitor, ...manifests.map(monitorOf)].filter(isSomewhere);
  await using monitors = await tryMonitors(ways, monitorTimeoutMs, store.identity);
  const isRunning = busy.size > 0 || monitors.open.length + monitors.silent.length > 0;
  const views: SetView[] = [];
  for (const manifest of manifests) {
    views.push(await viewSet(manifest, { monitors: monitors.open, isRunning, isBusy: busy.has(manifest.set) }));
  }
  return views;
}
