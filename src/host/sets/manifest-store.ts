// Stores manifests: STATE_DIR/VM/SET/manifest.json, and journal.json beside it while somebody works on the set. VM says
// what the VM is, not what it is called (vm/identity.ts); SET is the set's name. A set's folder appears with its
// journal in it, so that a name is taken by one creator only, and an empty folder is nobody's.
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { isErrno, UsageError } from '../../errors.js';
import { syncPath, writeDurably } from '../images/durable-file.js';
import { checkName } from '../vm/names.js';
import type { VmIdentity } from '../vm/identity.js';
import { oldestFirst } from './chain-order.js';
import { manifestSchema, type Manifest } from './manifest.js';
import { lockHolder } from './owner-lock.js';
import { setNames } from './set-names.js';

export const DEFAULT_STATE_DIR = '/var/lib/fsfreeze-bridge';

interface Unreadable {
  readonly set: string;
  readonly reason: string;
  /** Only the name was taken; nothing was made. */
  readonly empty: boolean;
}

export interface StoreView {
  /** For messages. */
  readonly name?: string;
  /** The VM whose sets these are. */
  readonly identity?: VmIdentity;
  /**
   * Sets that an older version left elsewhere: where each folder is, by the set's name. Not for a store that is written
   * to.
   */
  readonly old?: ReadonlyMap<string, string>;
  /** Tells where else a set of this name is, if that may be meant, when it is not here. */
  readonly elsewhere?: (set: string) => Promise<string | undefined>;
}

export class ManifestStore {
  readonly #dir: string;
  readonly #vm: string;
  readonly #old: ReadonlyMap<string, string>;
  readonly #elsewhere: NonNullable<StoreView['elsewhere']>;
  readonly identity: VmIdentity | undefined;

  /** @param key names the VM's folder */
  constructor(stateDir: string, key: string, { name = key, identity, old = new Map(), elsewhere }: StoreView = {}) {
    this.#vm = name;
    this.#dir = join(stateDir, key);
    this.identity = identity;
    this.#old = old;
    this.#elsewhere = elsewhere ?? (() => Promise.resolve(undefined));
  }

  /** The VM's folder. */
  get folder(): string {
    return this.#dir;
  }

  /**
   * Takes the name, with the journal's first text. Throws a UsageError if it is taken, or if the folder cannot be made.
   */
  async claim(set: string, journal: string): Promise<void> {
    const folder = this.#folder(set);
    const draft = join(this.#dir, `.${set}.${process.pid}.${randomBytes(4).toString('hex')}.claim`);
    try {
      await mkdir(this.#dir, { recursive: true, mode: 0o750 });
      await mkdir(draft, { mode: 0o750 });
      await writeFile(join(draft, 'journal.json'), journal, { mode: 0o640, flush: true });
      await syncPath(draft);
      await rename(draft, folder);
    } catch (cause) {
      await rm(draft, { recursive: true, force: true });
      if (isErrno(cause, 'EEXIST', 'ENOTEMPTY')) {
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

  /** Throws a UsageError if there is no such set, or if its manifest is not one (`E_MANIFEST`). */
  async read(set: string): Promise<Manifest> {
    checkName('snapshot set', set);
    const file = this.file(set);
    let json: unknown;
    try {
      json = JSON.parse(await readFile(file, 'utf8'));
    } catch (cause) {
      if (!isErrno(cause, 'ENOENT')) throw new UsageError('E_MANIFEST', `cannot read manifest ${file}`, { cause });
      const known = (await this.names()).join(', ') || 'none';
      const elsewhere = await this.#elsewhere(set);
      const hint = elsewhere === undefined ? '' : `; ${elsewhere}`;
      throw new UsageError('E_NO_SET', `VM ${this.#vm} has no snapshot set ${set} (there: ${known})${hint}`);
    }
    const parsed = v.safeParse(manifestSchema, json);
    // A set that was moved may have got another name.
    if (parsed.success) return { ...parsed.output, set };
    const [issue] = parsed.issues;
    throw new UsageError('E_MANIFEST', `manifest ${file}: ${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
  }

  /** Names of all sets, also of those whose manifest cannot be read. */
  async names(): Promise<string[]> {
    return [...(await setNames(this.#dir)), ...this.#old.keys()];
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
    return { manifests: await oldestFirst(manifests), unreadable };
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

  journalFile(set: string): string {
    return join(this.#folder(set), 'journal.json');
  }

  /** Removes what was left by those who were killed while they took a name or wrote; gives what it was. */
  async sweep(isGone: (pid: number) => boolean, dryRun: boolean): Promise<string[]> {
    const found: string[] = [];
    for (const [folder, pattern] of [
      [this.#dir, /^(?:\..+|(?:lock|vm)\.json.*)\.(\d+)\.(?:tmp|[0-9a-f]{8}\.(?:claim|new))$/],
      ...(await this.names()).map((set) => [join(this.#dir, set), /\.(\d+)\.(?:tmp|[0-9a-f]{8}\.new)$/] as const),
    ] as const) {
      for (const name of await listed(folder)) {
        const match = pattern.exec(name);
        if (match !== null && isGone(Number(match[1]))) found.push(join(folder, name));
      }
    }
    for (const name of await listed(this.#dir)) {
      if (!/^lock\.json\..*\.stale$/.test(name)) continue;
      if ((await lockHolder(join(this.#dir, name))) === undefined) found.push(join(this.#dir, name));
    }
    if (!dryRun) for (const path of found) await rm(path, { recursive: true, force: true });
    return found;
  }

  // A journal, and drafts of a first write that was never finished, are all that may be in it.
  async #isEmpty(set: string): Promise<boolean> {
    try {
      const names = await readdir(this.#folder(set));
      return names.every((name) => name === 'journal.json' || /\.(tmp|new)$/.test(name));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false;
      throw error;
    }
  }

  #folder(set: string): string {
    return this.#old.get(set) ?? join(this.#dir, checkName('snapshot set', set));
  }
}

async function listed(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}
