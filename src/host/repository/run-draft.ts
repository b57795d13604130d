// Keeps a run in the making: a folder beside the published ones, `.draft-RUN`, that becomes the run by one rename when
// every file in it is whole, read-only and on the disk. Who holds the lock of the VM's backups may remove any other draft.
import { chmod, chown, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CutError, isErrno, UsageError } from '../../errors.js';
import { exists, syncPath, writeDurably } from '../images/durable-file.js';
import { draftRun, goneRun, MANIFEST, type VmFolder } from './layout.js';
import type { RunManifest } from './run-manifest.js';

export class RunDraft {
  /** Where its files are written to. */
  readonly path: string;
  readonly run: string;
  readonly #folder: VmFolder;

  private constructor(folder: VmFolder, run: string) {
    this.#folder = folder;
    this.run = run;
    this.path = folder.draft(run);
  }

  /** Throws a UsageError if the repository cannot be written to. */
  static async begin(folder: VmFolder, run: string): Promise<RunDraft> {
    const draft = new RunDraft(folder, run);
    try {
      // QEMU, which may run as another user, goes through the folders to the files that it is given.
      await mkdir(folder.path, { recursive: true, mode: 0o711 });
      await mkdir(draft.path, { mode: 0o711 });
      await syncPath(join(folder.path, '..'));
      await syncPath(folder.path);
    } catch (cause) {
      throw new UsageError('E_REPOSITORY', `cannot write to ${folder.path}`, { cause });
    }
    return draft;
  }

  /**
   * Publishes it: durable when it returns, and the run is there. `check` is called right before it appears: syncing may
   * have taken long. Throws what that throws, or a CutError `E_BACKUP`: then it is not there.
   */
  async publish(manifest: RunManifest, check: () => Promise<void>): Promise<void> {
    const target = this.#folder.run(this.run);
    try {
      await writeDurably(join(this.path, MANIFEST), `${JSON.stringify(manifest, undefined, 2)}\n`);
      await sealTree(this.path);
      if (await exists(target)) throw new Error('there is one of that name already');
      await check();
      await rename(this.path, target);
    } catch (cause) {
      throw cause instanceof UsageError ? cause : this.#unpublished(cause);
    }
    try {
      await syncPath(this.#folder.path);
    } catch (cause) {
      // Nobody knows whether it would outlast a crash, and whoever is told that it failed must not find it.
      await rename(target, this.path);
      throw this.#unpublished(cause);
    }
  }

  #unpublished(cause: unknown): CutError {
    return new CutError('E_BACKUP', `run ${this.run} could not be published in ${this.#folder.path}`, { cause });
  }

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    await syncPath(this.#folder.path);
  }
}

/** Files are only to be read from now on; they, and the folders' entries, are on the disk. */
async function sealTree(path: string): Promise<void> {
  for (const entry of await readdir(path, { withFileTypes: true })) {
    const each = join(path, entry.name);
    if (entry.isDirectory()) {
      await sealTree(each);
      continue;
    }
    await syncPath(each);
    await chmod(each, await takeBack(each));
    await syncPath(each);
  }
  await syncPath(path);
}

/** Makes the file ours: QEMU's user, who wrote it, is not to change it any more. Its mode from now on. */
async function takeBack(file: string): Promise<number> {
  try {
    await chown(file, process.getuid?.() ?? -1, process.getgid?.() ?? -1);
    return 0o440;
  } catch (error) {
    if (!isChownRefusal(error)) throw error;
    // Its group is not ours: it reads what it could read before, and no more.
    return 0o400 | ((await stat(file)).mode & 0o040);
  }
}

/** True where the filesystem lets nobody say whose a file is, as an NFS export that squashes users. */
export function isChownRefusal(error: unknown): error is NodeJS.ErrnoException {
  return isErrno(error, 'EPERM', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP');
}

/** Drafts of the VM that were left, and folders of runs that are removed in part. */
export async function leftFolders(folder: VmFolder): Promise<string[]> {
  if (!(await exists(folder.path))) return [];
  const found = await readdir(folder.path);
  return found.filter((name) => draftRun(name) !== undefined || goneRun(name) !== undefined);
}

/** Call it with the lock of the VM's backups only. */
export async function removeLeft(folder: VmFolder, names: readonly string[]): Promise<void> {
  for (const name of names) await rm(join(folder.path, name), { recursive: true, force: true });
  if (names.length > 0) await syncPath(folder.path);
}
