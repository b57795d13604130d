// Chooses disks of a run.
import { UsageError } from '../../errors.js';
import type { RunDisk, RunManifest } from '../repository/run-manifest.js';

/** Those of these ids, serials or file names; all of them if none is named. Throws a UsageError. */
export function chooseRunDisks({ run, disks }: RunManifest, named: readonly string[]): RunDisk[] {
  if (named.length === 0) return [...disks];
  return named.map((name) => {
    const found = disks.filter(({ id, serial, file }) => [id, serial, file.name].includes(name));
    const [disk] = found;
    if (disk !== undefined && found.length === 1) return disk;
    const there = disks.map(({ id }) => id).join(', ');
    throw new UsageError('E_DISK', `--disk ${JSON.stringify(name)}: expected one disk of run ${run} (${there})`);
  });
}
