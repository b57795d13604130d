// Where manifests lie: STATE_DIR/VM/SET/manifest.json. A set's folder is made exclusively, so that a name is taken by
// one creator only.
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { BridgeError, UsageError } from '../errors.js';
import { syncPath, writeDurably } from './durable-file.js';
import { isErrno } from './errno.js';
import { manifestSchema, type Manifest } from './manifest.js';
import { checkName } from './vm.js';

export const defaultStateDir = '/var/lib/fsfreeze-bridge';

interface Unreadable {
  readonly set: string;
  readonly reason: string;
  /** Only the name was taken; nothing was made. */
  readonly empty: boolean;
}

export class ManifestStore {
  readonly #dir: string;
  readonly #vm: string;

  constructor(stateDir: string, vm: string) {
    this.#vm = vm;
    this.#dir = join(stateDir, checkName('VM name', vm));
  }

  /** Takes the name. Throws a UsageError if it is taken, or if the folder cannot be made. */
  async claim(set: string): Promise<void> {
    const folder = this.#folder(set);
    try {
      await mkdir(this.#dir, { recursive: true, mode: 0o750 });
      await mkdir(folder, { mode: 0o750 });
    } catch (cause) {
      if (isErrno(cause, 'EEXIST')) {
        throw new UsageError('E_NAME_TAKEN', `VM ${this.#vm} already has a snapshot set named ${set} (${folder})`);
      }
      throw new UsageError('E_STATE_DIR', `cannot make ${folder}`, { cause });
    }
    await syncPath(this.#dir);
  }

  /** Throws a UsageError if the name is taken. Before anything is done; `claim` decides. */
  async checkFree(set: string): Promise<void> {
    if ((await this.names()).includes(checkName('snapshot set', set))) {
      const where = this.#folder(set);
      throw new UsageError('E_NAME_TAKEN', `VM ${this.#vm} already has a snapshot set named ${set} (${where})`);
    }
  }

  /** Durable when it returns; gives back what was written, with its stamp. */
  async write(manifest: Manifest): Promise<Manifest> {
    const stamped = { ...manifest, changedAt: new Date().toISOString() };
    await writeDurably(this.file(manifest.set), `${JSON.stringify(stamped, undefined, 2)}\n`);
    return stamped;
  }

  /** Throws a UsageError if there is no such set, a BridgeError if its manifest is not one. */
  async read(set: string): Promise<Manifest> {
    checkName('snapshot set', set);
    const file = this.file(set);
    let json: unknown;
    try {
      json = JSON.parse(await readFile(file, 'utf8'));
    } catch (cause) {
      if (!isErrno(cause, 'ENOENT')) throw new BridgeError('E_MANIFEST', `cannot read manifest ${file}`, { cause });
      const known = (await this.names()).join(', ') || 'none';
      throw new UsageError('E_NO_SET', `VM ${this.#vm} has no snapshot set ${set} (there: ${known})`);
    }
    const parsed = v.safeParse(manifestSchema, json);
    if (parsed.success) return parsed.output;
    const [issue] = parsed.issues;
    throw new BridgeError('E_MANIFEST', `manifest ${file}: ${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
  }

  /** Names of all sets, also of those whose manifest cannot be read. */
  async names(): Promise<string[]> {
    try {
      const entries = await readdir(this.#dir, { withFileTypes: true });
      return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return [];
      throw new UsageError('E_STATE_DIR', `cannot list ${this.#dir}`, { cause: error });
    }
  }

  /** All sets, oldest first; those that cannot be read apart. */
  async readAll(): Promise<{ manifests: Manifest[]; unreadable: Unreadable[] }> {
    const manifests: Manifest[] = [];
    const unreadable: Unreadable[] = [];
    for (const set of await this.names()) {
      try {
        manifests.push(await this.read(set));
      } catch (error) {
        if (await this.#isEmpty(set)) {
          unreadable.push({ set, reason: 'its maker ended before it began, or is at it now: delete it', empty: true });
        } else {
          unreadable.push({ set, reason: error instanceof Error ? error.message : String(error), empty: false });
        }
      }
    }
    manifests.sort((a, b) => a.createdAt.localeCompare(b.createdAt));
    return { manifests, unreadable };
  }

  /**
   * All sets, before something is taken away for good. Throws a UsageError if one cannot be read: it may lie on any of
   * the others.
   */
  async readAllOrRefuse(): Promise<Manifest[]> {
    const { manifests, unreadable } = await this.readAll();
    const [bad] = unreadable.filter(({ empty }) => !empty);
    if (bad === undefined) return manifests;
    const message = `the manifest of set ${bad.set} cannot be read, and it may lie on any other: repair ${this.file(bad.set)}`;
    throw new UsageError('E_UNREADABLE_SETS', `${message} (${bad.reason})`);
  }

  /** Frees a name that was taken by a maker who ended before it wrote a manifest. False if there is no such. */
  async removeEmpty(set: string): Promise<boolean> {
    if (!(await this.#isEmpty(set))) return false;
    await this.remove(set);
    return true;
  }

  /** Forgets the set; its images are not touched. */
  async remove(set: string): Promise<void> {
    const folder = this.#folder(set);
    await rm(folder, { recursive: true, force: true });
    await syncPath(dirname(folder));
  }

  file(set: string): string {
    return join(this.#folder(set), 'manifest.json');
  }

  // Drafts of a first write that was never finished are all that may be in it.
  async #isEmpty(set: string): Promise<boolean> {
    try {
      return (await readdir(this.#folder(set))).every((name) => name.endsWith('.tmp'));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false;
      throw error;
    }
  }

  #folder(set: string): string {
    return join(this.#dir, checkName('snapshot set', set));
  }
}
