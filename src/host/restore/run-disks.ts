// Chooses disks of a run, and names their chains to qemu-img.
import { UsageError } from '../../errors.js';
import { imageName, type OpenLayer } from '../images/layers.js';
import type { Link } from '../repository/chain.js';
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

/** The name by which qemu-img opens the chain, whatever its headers say. */
export function chainName(links: readonly Pick<Link, 'file'>[]): string {
  return imageName(links.map(({ file }): OpenLayer => ({ file, format: 'qcow2', isDevice: false })));
}
