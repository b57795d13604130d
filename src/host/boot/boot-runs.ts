// `backup verify --boot`: boots runs of a repository one after the other, and records what was found.
import { UsageError } from '../../errors.js';
import { recordBoot, type BootFiles, type BootVerdict } from '../repository/boot-verdict.js';
import { findRun } from '../repository/find-run.js';
import type { HouseOptions } from '../repository/keep-house.js';
import { lockForReading } from '../repository/repository-lock.js';
import { openRepository } from '../repository/repository.js';
import type { BootOptions } from './boot-options.js';
import { bootRun } from './boot-run.js';

export interface BootedRun {
  readonly vm: string;
  readonly verdict: BootVerdict;
  readonly files: BootFiles;
}

/** Throws what `bootRun` does, and a UsageError for a run that is not there: what was found before stays recorded. */
export async function bootRuns(
  options: HouseOptions & { readonly runs: readonly string[]; readonly boot: BootOptions },
): Promise<readonly BootedRun[]> {
  const { runs, boot } = options;
  const repository = await openRepository(options.repository);
  const booted: BootedRun[] = [];
  for (const name of runs) {
    const { manifest, vm: of } = await findRun(repository, name, options.vm);
    const { folder, name: vm } = of;
    await using lock = await lockForReading(repository, folder.key, { ...options, operation: 'backup verify --boot' });
    // It may have been forgotten before we said that we read it.
    const found = await findRun(repository, manifest.run, folder.key);
    const { verdict, sights } = await bootRun(found, boot, options);
    await lock.check();
    booted.push({ vm, verdict, files: await recordBoot(folder, verdict, sights) });
  }
  if (booted.length > 0) return booted;
  throw new UsageError('E_NO_BACKUP', 'which runs are to be booted? Name them, "latest" for instance');
}
