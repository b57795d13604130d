// `backup verify --boot`: boots runs of a repository one after the other, and records what was found.
import { UsageError } from '../../errors.js';
import { recordBoot, type BootFiles, type BootVerdict } from '../repository/boot-verdict.js';
import { findToRead } from '../repository/find-to-read.js';
import type { HouseOptions } from '../repository/keep-house.js';
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
    await using run = await findToRead(repository, name, options.vm, { ...options, operation: 'backup verify --boot' });
    const { verdict, sights } = await bootRun(run, boot, options);
    await run.lock.check();
    const { folder, name: vm } = run.vm;
    booted.push({ vm, verdict, files: await recordBoot(folder, verdict, sights) });
  }
  if (booted.length > 0) return booted;
  throw new UsageError('E_NO_BACKUP', 'which runs are to be booted? Name them, "latest" for instance');
}
