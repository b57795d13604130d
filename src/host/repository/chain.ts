// Follows a disk of a run down to the full one it lies on, by what the manifests say, and compares each file with its
// record. Readers open every layer by the record: a header that names another file is an error, since a chain that was
// joined in another order reads as well, and wrongly.
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { BridgeError, CutError, isErrno } from '../../errors.js';
import { referencesOf } from '../images/references.js';
import { chainLayer } from './chain-name.js';
import { isBeginningSound } from './extents.js';
import type { VmFolder } from './layout.js';
import { checkLuks, referencesInLuks, type LinkReading } from './luks-link.js';
import type { DiskFile, RunDisk, RunManifest } from './run-manifest.js';

/** One layer of a disk. */
export interface Link {
  readonly run: string;
  readonly disk: RunDisk;
  /** Absolute. */
  readonly file: string;
  /** As recorded. */
  readonly encryption: DiskFile['encryption'];
}

/** The name by which a header calls the file of another run, seen from its own: the tree may be moved as a whole. */
export function backingName(run: string, { name, encryption }: Pick<DiskFile, 'name' | 'encryption'>): string {
  const file = `../${run}/${name}`;
  // A path alone would not tell how it is opened. QEMU takes this one from its working folder.
  return encryption === undefined ? file : chainLayer({ file, encryption });
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
    const { name, encryption } = at.disk.file;
    links.push({ ...at, file: join(folder.run(at.run), name), encryption });
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

/**
 * Throws a CutError `E_CHAIN` unless it is a plain file that has its size, and its header names what is recorded, and nothing
 * else; a UsageError `E_KEY` if the key does not open it, and the signal's reason when aborted.
 */
export async function checkLink(link: Link, reading: LinkReading): Promise<void> {
  const { run, disk, file } = link;
  const what = `${disk.file.name} of run ${run}`;
  const size = await sizeOf(file, what);
  if (size !== disk.file.size) throw broken(what, `it has ${size} bytes, expected ${disk.file.size}`);
  if (link.encryption !== undefined) {
    const why = await checkLuks(file);
    if (why !== undefined) throw broken(what, why);
    if (reading.key === undefined) return;
  }
  const { backingName: named, dataFiles } =
    link.encryption === undefined ? await referencesOf(file) : await referencesIn(link, what, reading);
  const { base } = disk;
  const { encryption } = link;
  const expected = base === undefined ? undefined : backingName(base.run, { name: base.name, encryption });
  if (named !== expected) {
    throw broken(what, `its header names ${named ?? 'nothing'} below it, expected ${expected ?? 'nothing'}`);
  }
  if (dataFiles.length > 0) throw broken(what, `its data lies in ${dataFiles.join(', ')}, expected in the file itself`);
}

async function referencesIn(link: Link, what: string, reading: LinkReading) {
  try {
    return await referencesInLuks(link, what, reading);
  } catch (error) {
    // A key that is damaged on the disk is like another one.
    if (!(error instanceof BridgeError) || error.code !== 'E_KEY') throw error;
    if (await isBeginningSound(link.file, link.disk.file, reading.signal)) throw error;
    throw broken(what, 'its header is damaged');
  }
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
