// Tells files of backup runs from other images, by where they lie: REPOSITORY/VM/RUN/FILE (repository/layout.ts).
import { basename, dirname, join } from 'node:path';
import { isErrno } from '../../errors.js';
import { exists } from './durable-file.js';

export const REPOSITORY_FILE = 'repository.json';

/** A run's name: when it was begun (UTC), and its id. */
export const runPattern = /^\d{8}T\d{6}Z-[0-9a-f]{8}$/;

export interface RunFile {
  readonly file: string;
  readonly run: string;
  /** Folder of its repository. */
  readonly repository: string;
}

/** The first of the files, absolute, that is one of a run; undefined if none is. */
export async function runFileAmong(files: readonly string[]): Promise<RunFile | undefined> {
  for (const file of files) {
    const folder = dirname(file);
    const run = basename(folder);
    const repository = dirname(dirname(folder));
    if (runPattern.test(run) && (await isRepository(repository))) return { file, run, repository };
  }
  return undefined;
}

async function isRepository(folder: string): Promise<boolean> {
  try {
    return await exists(join(folder, REPOSITORY_FILE));
  } catch (error) {
    // Not ours to see: the name of the run has to do.
    if (isErrno(error, 'EACCES', 'EPERM', 'EIO', 'ESTALE')) return true;
    throw error;
  }
}
