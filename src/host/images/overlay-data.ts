// Tells whether an overlay holds what no other layer has, without opening the layers below it: those may be locked by a
// VM, or gone.
import { stat } from 'node:fs/promises';
import { hasClusters } from './clusters.js';
import { exists } from './durable-file.js';

/**
 * True if any cluster of the qcow2 layer is allocated: what was written to it, or discarded in it. False for a file that
 * has no byte yet. While a VM has it open, clusters written last may be missed. Throws what stat(2) does: of a file that is
 * not there nothing is known.
 */
export async function holdsData(file: string): Promise<boolean> {
  if ((await stat(file)).size === 0) return false;
  return await hasClusters(file);
}

/** The files among these that are there and hold data. */
export async function withData(files: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const file of files) if ((await exists(file)) && (await holdsData(file))) found.push(file);
  return found;
}
