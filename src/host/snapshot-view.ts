// The sets of a VM as they are worth now: for `snapshot list` and `snapshot show`. Only reads, but for a set whose maker was
// killed: what became of it is recorded once it is known.
import { UnreachableError } from '../errors.js';
import { isBusy } from './sets/journal.js';
import type { Manifest } from './sets/manifest.js';
import type { ManifestStore } from './sets/manifest-store.js';
import { viewSet, type SetView } from './sets/set-view.js';
import { openMonitors, type Monitors } from './vm/monitors.js';

/** Views of the manifests, in their order, by the monitors at `qmp` and those that the sets were made through. */
export async function viewSnapshots(
  store: ManifestStore,
  manifests: readonly Manifest[],
  qmp: string,
  monitorTimeoutMs: number,
): Promise<SetView[]> {
  const paths = [qmp, ...manifests.map(({ vm }) => vm.qmp)];
  await using monitors = await openOrSilent(paths, monitorTimeoutMs);
  const views: SetView[] = [];
  for (const manifest of manifests) {
    const busy = await isBusy(store, manifest.set);
    const isRunning = monitors.open.length > 0 || monitors.isSilent;
    const view = await viewSet(manifest, { monitors: monitors.open, isRunning, isBusy: busy });
    // Only the running VM knows for certain: without it the files may say less tomorrow, and `recover` records.
    if (monitors.open.length > 0 && view.manifest !== manifest) await store.write(view.manifest);
    views.push(view);
  }
  return views;
}

interface MaybeMonitors extends Monitors {
  /** Somebody has a monitor, and does not let us ask. */
  readonly isSilent: boolean;
}

async function openOrSilent(paths: readonly string[], timeoutMs: number): Promise<MaybeMonitors> {
  try {
    const monitors = await openMonitors(paths, timeoutMs);
    return {
      open: monitors.open,
      isSilent: false,
      [Symbol.asyncDispose]: async () => {
        await monitors[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error;
    return { open: [], isSilent: true, [Symbol.asyncDispose]: () => Promise.resolve() };
  }
}
