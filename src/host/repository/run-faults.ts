// Tells what is known to be wrong with a run, by its last verification and its last boot test, without reading its files.
import { BridgeError } from '../../errors.js';
import { lastBootVerdict } from './boot-verdict.js';
import { chainOf } from './chain.js';
import type { VmFolder } from './layout.js';
import type { RunManifest } from './run-manifest.js';
import { lastVerdict } from './verify-run.js';

/** What is known of this run's own files, as the end of a sentence that names it; undefined if nothing. Never throws. */
export async function faultOf(folder: VmFolder, run: string): Promise<string | undefined> {
  const [damage] = (await lastVerdict(folder, run))?.problems ?? [];
  if (damage !== undefined) return `was found damaged (${damage})`;
  const [failure] = (await lastBootVerdict(folder, run))?.problems ?? [];
  return failure === undefined ? undefined : `failed its boot test (${failure})`;
}

/** What is known to be wrong with the run, or with one that it lies on, in a sentence; undefined if nothing. */
export async function knownProblem(
  folder: VmFolder,
  runs: readonly RunManifest[],
  manifest: RunManifest,
): Promise<string | undefined> {
  const layers = new Set([manifest.run]);
  try {
    for (const disk of manifest.disks) for (const { run } of chainOf(folder, runs, manifest, disk)) layers.add(run);
  } catch (error) {
    if (error instanceof BridgeError && error.code === 'E_CHAIN') return error.message;
    throw error;
  }
  for (const run of layers) {
    const fault = await faultOf(folder, run);
    if (fault !== undefined) return `run ${run} ${fault}`;
  }
  return undefined;
}
