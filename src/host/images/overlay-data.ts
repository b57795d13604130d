// What an overlay holds that no other layer has, without opening the layers below it: those may be locked by a VM, or
// gone.
import { stat } from 'node:fs/promises';
import { isErrno } from '../errno.js';
import { hasClusters } from './clusters.js';

/**
 * True if any cluster of the qcow2 layer is allocated: what was written to it, or discarded in it. False for a file that
 * is not there, or has no byte yet. While a VM has it open, clusters written last may be missed.
 */
export async function holdsData(file: string): Promise<boolean> {
  try {
    if ((await stat(file)).size === 0) return false;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
  return await hasClusters(file);
}

/** Those of the files that hold data. */
export async function withData(files: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const file of files) if (await holdsData(file)) found.push(file);
  return found;
}
