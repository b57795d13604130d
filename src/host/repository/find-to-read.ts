// Finds a run for whoever reads it, and keeps it from being forgotten meanwhile.
import { findRun, type FoundRun } from './find-run.js';
import { lockForReading, type ReadingOptions, type RepositoryLock } from './repository-lock.js';
import type { Repository } from './repository.js';

/** Nobody removes it until it is disposed. */
export interface RunToRead extends FoundRun, AsyncDisposable {
  readonly lock: RepositoryLock;
}

/** Throws what findRun and lockForReading do. */
export async function findToRead(
  repository: Repository,
  name: string,
  vm: string | undefined,
  reading: ReadingOptions,
): Promise<RunToRead> {
  const { manifest, vm: of } = await findRun(repository, name, vm);
  const lock = await lockForReading(repository, of.folder.key, reading);
  const unlock = async (): Promise<void> => {
    await lock[Symbol.asyncDispose]();
  };
  try {
    // It may have been forgotten before we said that we read it.
    const found = await findRun(repository, manifest.run, of.folder.key);
    return { ...found, lock, [Symbol.asyncDispose]: unlock };
  } catch (error) {
    await unlock();
    throw error;
  }
}
