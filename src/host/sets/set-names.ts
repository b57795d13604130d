// Lists the sets in a folder: its folders that are not hidden.
import { readdir } from 'node:fs/promises';
import { isErrno, UsageError } from '../../errors.js';

/**
 * The names, also of sets whose manifest cannot be read; empty if the folder is not there. Throws a UsageError if it
 * cannot be listed.
 */
export async function setNames(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.')).map((entry) => entry.name);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw new UsageError('E_STATE_DIR', `cannot list ${folder}`, { cause: error });
  }
}
