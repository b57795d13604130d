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
  async readAll(): Promise<{ manifests: Manifest[]; unreadable: { set: string; reason: string }[] }> {
    const manifests: Manifest[] = [];
    const unreadable: { set: string; reason: string }[] = [];
    for (const set of await this.names()) {
      try {
        manifests.push(await this.read(set));
      } catch (error) {
        unreadable.push({ set, reason: error instanceof Error ? error.message : String(error) });
      }
    }
    manifests.sort((a, b) => a.createdAt.localeCompare(b.createdAt));
    return { manifests, unreadable };
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

  #folder(set: string): string {
    return join(this.#dir, checkName('snapshot set', set));
  }
}
