// Follows a disk of a run down to the full one it lies on, by what the manifests say, and compares each file with its
// record. Readers open every layer by the record: a header that names another file is an error, since a chain that was
// joined in another order reads as well, and wrongly.
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { CutError, isErrno } from '../../errors.js';
import { referencesOf } from '../images/references.js';
import type { VmFolder } from './layout.js';
import type { RunDisk, RunManifest } from './run-manifest.js';

/** One layer of a disk. */
export interface Link {
  readonly run: string;
  readonly disk: RunDisk;
  /** Absolute. */
  readonly file: string;
}

/** The name by which a header calls the file of another run: the tree may be moved as a whole. */
export function backingName(run: string, name: string): string {
  return `../${run}/${name}`;
}

/**
 * The layers, the newest first, the full one last. Throws a CutError `E_CHAIN` if a run of it is not there or is another
 * than the one recorded.
 */
export function chainOf(folder: VmFolder, runs: readonly RunManifest[], { run }: RunManifest, disk: RunDisk): Link[] {
  const links: Link[] = [];
  for (let at: { run: string; disk: RunDisk } | undefined = { run, disk }; at !== undefined;) {
    // A run lies on earlier ones alone; the bound is for records that somebody changed.
    if (links.length > runs.length) throw broken(`${disk.file.name} of run ${run}`, 'it lies on itself');
    links.push({ ...at, file: join(folder.run(at.run), at.disk.file.name) });
    at = below(runs, at);
  }
  return links;
}

function below(
  runs: readonly RunManifest[],
  { run, disk }: { readonly run: string; readonly disk: RunDisk },
): { run: string; disk: RunDisk } | undefined {
  const { base } = disk;
  const what = `${disk.file.name} of run ${run}`;
  if (base === undefined) {
    if (disk.kind === 'full') return undefined;
    throw broken(what, 'its record does not say what it lies on');
  }
  const found = runs.find((each) => each.run === base.run)?.disks.find(({ file }) => file.name === base.name);
  if (found === undefined) throw broken(what, `it lies on ${base.name} of run ${base.run}, which is not there`);
  if (found.file.blake2b !== base.blake2b) throw broken(what, `it lies on another ${base.name} of run ${base.run}`);
  return { run: base.run, disk: found };
}

/** Throws a CutError `E_CHAIN` unless it is a plain file that has its size, and its header names what is recorded, and nothing else. */
export async function checkLink({ run, disk, file }: Link): Promise<void> {
  const what = `${disk.file.name} of run ${run}`;
  const size = await sizeOf(file, what);
  if (size !== disk.file.size) throw broken(what, `it has ${size} bytes, expected ${disk.file.size}`);
  const { backingName: named, dataFiles } = await referencesOf(file);
  const expected = disk.base === undefined ? undefined : backingName(disk.base.run, disk.base.name);
  if (named !== expected) {
    throw broken(what, `its header names ${named ?? 'nothing'} below it, expected ${expected ?? 'nothing'}`);
  }
  if (dataFiles.length > 0) throw broken(what, `its data lies in ${dataFiles.join(', ')}, expected in the file itself`);
}

async function sizeOf(file: string, what: string): Promise<number> {
  try {
    const found = await lstat(file);
    // A link may lead to a file of somebody else, who changes it as he likes.
    if (!found.isFile()) throw broken(what, `${file} is no plain file`);
    return found.size;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) throw broken(what, `${file} is not there`);
    throw error;
  }
}

function broken(what: string, why: string): CutError {
  return new CutError('E_CHAIN', `${what}: ${why}`);
}
