// Tries the key of runs that are encrypted, before anything is begun with them.
import { UsageError } from '../../errors.js';
import { chainOf, checkLink } from './chain.js';
import type { FoundRun } from './find-run.js';
import type { LinkReading } from './luks-link.js';
import type { RunDisk } from './run-manifest.js';

/**
 * Throws a UsageError `E_KEY` if one of the disks is encrypted and no key is given, or it does not open all of its files; and
 * what `chainOf` and `checkLink` do for those.
 */
export async function requireKey(
  { manifest, runs, vm: { folder } }: FoundRun,
  disks: readonly RunDisk[],
  reading: LinkReading,
): Promise<void> {
  for (const disk of disks.filter(({ file }) => file.encryption !== undefined)) {
    if (reading.key === undefined) {
      throw new UsageError('E_KEY', `run ${manifest.run} is encrypted: give its key by --key-file or --key-command`);
    }
    for (const link of chainOf(folder, runs.all, manifest, disk)) await checkLink(link, reading);
  }
}
