// Keeps what belongs to a VM beside its disks in the folder of a set: texts before the cut, files of the VM's own right
// after it. The manifest names each with its sum. Nothing is put back by itself, but for what libvirt is to start with
// (vm/definition.ts).
import { createHash } from 'node:crypto';
import { copyFile, mkdir, open, readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { describeError } from '../../errors.js';
import { syncPath, writeDurably } from '../images/durable-file.js';
import { LUKS_CIPHER, writeLuks } from '../images/luks-file.js';
import type { LuksKey } from '../images/luks-key.js';
import type { VmDescription } from '../vm/hypervisor.js';
import type { StateFolder } from '../vm/state-folder.js';
import type { Manifest, SavedFile } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';

/** More than any firmware or TPM keeps. */
const LARGEST_BYTES = 256 * 1024 * 1024;

/** Keeps the texts in the folder. Throws what cannot be written. */
export async function saveTexts(folder: string, texts: VmDescription['texts']): Promise<SavedFile[]> {
  const saved: SavedFile[] = [];
  for (const { name, what, text } of texts) {
    await writeDurably(join(folder, name), text);
    saved.push({ name, what, ...sumOf(Buffer.from(text)), copied: 'before the cut', copiedAt: now() });
  }
  return saved;
}

/** How a copy is encrypted, and the bytes of the file itself. */
interface Encryption {
  readonly format: 'luks';
  readonly cipher: string;
  readonly size: number;
}

export interface Copied<Saved = SavedFile> {
  readonly saved: Saved[];
  /** Files that could not be copied, and why. */
  readonly leftOut: Manifest['leftOut'];
}

/** Copies what the folders hold into `own`; with a key, each into a LUKS file. Never throws: the cut is taken. */
export async function saveState(own: string, folders: readonly StateFolder[]): Promise<Copied>;
export async function saveState(
  own: string,
  folders: readonly StateFolder[],
  key: LuksKey | undefined,
): Promise<Copied<SavedFile & { encryption?: Encryption }>>;
export async function saveState(
  own: string,
  folders: readonly StateFolder[],
  key?: LuksKey,
): Promise<Copied<SavedFile & { encryption?: Encryption }>> {
  const saved: (SavedFile & { encryption?: Encryption })[] = [];
  const leftOut: Manifest['leftOut'] = [];
  for (const { name, what, path, seenAt } of folders) {
    try {
      await mkdir(join(own, name), { mode: 0o750 });
      for (const { file, from } of await filesIn(seenAt, path)) {
        const copy = join(name, key === undefined ? file : `${file}.luks`);
        const encryption = await keep(from.seenAt, join(own, copy), key);
        await syncPath(join(own, copy));
        const sum = sumOf(await readFile(join(own, copy)));
        saved.push({
          name: copy,
          what,
          from: from.path,
          ...sum,
          copied: 'after the cut',
          copiedAt: now(),
          ...encryption,
        });
      }
      await syncPath(join(own, name));
    } catch (error) {
      leftOut.push({ what: `${what} (${path})`, reason: `could not be copied: ${describeError(error)}` });
    }
  }
  if (folders.length > 0) await syncPath(own).catch(() => undefined);
  return { saved, leftOut };
}

/** In clear text nothing of it is written where a key is given. */
async function keep(file: string, copy: string, key: LuksKey | undefined): Promise<{ encryption?: Encryption }> {
  if (key === undefined) {
    await copyFile(file, copy);
    return {};
  }
  const bytes = await readFile(file);
  const handle = await open(copy, 'wx', 0o600);
  try {
    await writeLuks(handle, key, bytes);
  } finally {
    await handle.close();
  }
  return { encryption: { format: 'luks', cipher: LUKS_CIPHER, size: bytes.length } };
}

/** The text that was kept by this name; undefined if it is not there, or is not what was kept. */
export async function readSaved(
  store: ManifestStore,
  { set, saved = [] }: Manifest,
  name: string,
): Promise<string | undefined> {
  const entry = saved.find((each) => each.name === name);
  if (entry === undefined) return undefined;
  const bytes = await readFile(join(dirname(store.file(set)), name)).catch(() => undefined);
  return bytes !== undefined && sumOf(bytes).sha256 === entry.sha256 ? bytes.toString('utf8') : undefined;
}

interface Found {
  readonly file: string;
  readonly from: { readonly path: string; readonly seenAt: string };
}

/** Regular files of a folder, without swtpm's lock and what it has not finished writing; or the file itself. */
async function filesIn(seenAt: string, path: string): Promise<Found[]> {
  // QEMU may have a name that counts from its own working directory.
  if (!isAbsolute(path)) throw new Error('where it is is not known');
  const found = await stat(seenAt);
  if (!found.isDirectory()) {
    if (!found.isFile()) throw new Error(`${path} is neither a file nor a folder`);
    if (found.size > LARGEST_BYTES)
      throw new Error(`${path} has ${found.size} bytes, expected at most ${LARGEST_BYTES}`);
    return [{ file: basename(path), from: { path, seenAt } }];
  }
  const entries = await readdir(seenAt, { withFileTypes: true });
  return (
    await Promise.all(
      entries
        .filter((entry) => entry.isFile() && !/^(\.lock$|TMP)/.test(entry.name))
        .map(async ({ name }) => await filesIn(join(seenAt, name), join(path, name))),
    )
  ).flat();
}

function sumOf(bytes: Buffer): Pick<SavedFile, 'size' | 'sha256'> {
  return { size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
}

const now = (): string => new Date().toISOString();
