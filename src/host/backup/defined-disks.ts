// Chooses the disks of a VM that is shut off whose definition is kept: all that it is defined with and that its guest may
// write to, whatever earlier runs were of. What cannot be read from a file alone is missing in the run, and told of.
import { UsageError } from '../../errors.js';
import type { KnownDisk } from '../repository/known-disks.js';
import type { RunManifest } from '../repository/run-manifest.js';
import type { DefinedDisk } from '../vm/defined-vm.js';
import { imageFormats, type LeftOut } from '../vm/disk-choice.js';

export interface DefinedChoice {
  readonly disks: readonly KnownDisk[];
  readonly leftOut: readonly LeftOut[];
  /** Those of them that the guest may write to and nobody chose to leave out. */
  readonly missing: readonly LeftOut[];
}

/**
 * `named`: targets, serials or files; all disks if it is empty. Throws a UsageError for a name that fits none, for a named disk
 * that cannot be read, and, if none is named, for a disk of the newest run that the definition does not have.
 */
export function chooseDefined(
  defined: readonly DefinedDisk[],
  named: readonly string[],
  newest: Pick<RunManifest, 'run' | 'disks'>,
): DefinedChoice {
  if (named.length > 0) {
    const wanted = named.map((name) => find(defined, name));
    const leftOut = defined
      .filter((disk) => !wanted.includes(disk))
      .map((disk) => ({ what: nameOf(disk), reason: 'not named by --disk' }));
    return { disks: wanted.map(known), leftOut, missing: [] };
  }
  const gone = newest.disks.find(({ id }) => !defined.some(({ target }) => target === id));
  if (gone !== undefined) {
    const message = `the domain is defined without disk ${gone.id} of run ${newest.run}: name the others (--disk)`;
    throw new UsageError('E_DISK', message);
  }
  const written = defined.filter(({ unwritten }) => unwritten === undefined);
  const missing = written.flatMap((disk) => leftOutFor(disk, whyNot(disk)));
  const unwritten = defined.flatMap((disk) => leftOutFor(disk, disk.unwritten));
  const disks = written.filter((disk) => whyNot(disk) === undefined).map(known);
  if (disks.length === 0)
    throw new UsageError('E_DISK', 'the domain is defined without a disk that could be backed up');
  return { disks, leftOut: [...missing, ...unwritten], missing };
}

function find(defined: readonly DefinedDisk[], name: string): DefinedDisk {
  const disk = defined.find(({ target, serial, file }) => [target, serial, file].includes(name));
  if (disk !== undefined) return disk;
  const there = defined.map(({ target }) => target).join(', ');
  const message = `--disk ${JSON.stringify(name)}: expected one of the disks that the domain is defined with (${there})`;
  throw new UsageError('E_DISK', message);
}

function known(disk: DefinedDisk): KnownDisk {
  const { target, serial, file } = disk;
  const format = imageFormats.find((each) => each === disk.format);
  const why = whyNot(disk);
  if (why === undefined && file !== undefined && format !== undefined) return { id: target, serial, file, format };
  throw new UsageError('E_DISK', `cannot cut disk ${nameOf(disk)}: ${why ?? 'it has no image'}`);
}

function whyNot({ notInFile, format }: DefinedDisk): string | undefined {
  if (notInFile !== undefined) return notInFile;
  if (imageFormats.some((each) => each === format)) return undefined;
  return `its format is ${format}, expected ${imageFormats.join(' or ')}`;
}

function leftOutFor(disk: DefinedDisk, reason: string | undefined): LeftOut[] {
  return reason === undefined ? [] : [{ what: nameOf(disk), reason }];
}

function nameOf({ target, file, serial }: DefinedDisk): string {
  const more = [...(file === undefined ? [] : [file]), ...(serial === undefined ? [] : [`serial ${serial}`])];
  return more.length === 0 ? target : `${target} (${more.join(', ')})`;
}
