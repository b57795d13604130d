// Finds and moves the sets of older versions, which lie in STATE_DIR/NAME, whatever VM had the name. Each is moved into
// the folder of its VM when something is first done with that VM, by one rename: killed at any moment, a set is in the
// one folder or in the other.
import { mkdir, readFile, rename, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { defined } from '../../defined.js';
import { isErrno } from '../../errors.js';
import { syncPath } from '../images/durable-file.js';
import { identityFrom, identityKey, sameVm, uuidPattern, type VmIdentity } from '../vm/identity.js';
import { parsePlace } from '../vm/place.js';
import { readJournal } from './journal.js';
import { busyError } from './owner-lock.js';
import { setNames } from './set-names.js';
import { readRecord, stateFolders } from './vm-record.js';

export interface OldSet {
  /** Below the state directory. */
  readonly folder: string;
  readonly set: string;
  /** The VM by its manifest, or by those beside it; undefined if nothing says whose it is. */
  readonly identity: VmIdentity | undefined;
  /** How its VM was reached, by its own manifest. */
  readonly qmp?: string;
  readonly qga?: string;
  readonly createdAt?: string;
}

// All that is needed to know whose it is, also of one that cannot be read otherwise.
const whoseSchema = v.object({
  createdAt: v.optional(v.string()),
  vm: v.object({ qmp: v.string(), qga: v.optional(v.string()), uuid: v.optional(v.string()) }),
});

/**
 * All there are, by folder. Throws a UsageError if the state directory cannot be listed; skips a folder that cannot.
 */
export async function oldSets(stateDir: string): Promise<OldSet[]> {
  const found: OldSet[] = [];
  for (const folder of await stateFolders(stateDir)) {
    if (uuidPattern.test(folder)) continue;
    const isNew = await readRecord(stateDir, folder).then(
      (record) => record !== undefined,
      () => true,
    );
    if (isNew) continue;
    const own: OldSet[] = [];
    for (const set of await setNames(join(stateDir, folder)).catch(() => [])) {
      own.push({ folder, set, ...(await whose(join(stateDir, folder, set, 'manifest.json'))) });
    }
    // A name that was only taken, or a manifest that is broken: with the others, if they are all of one VM.
    const known = own.flatMap(({ identity }) => identity ?? []);
    const [first] = known;
    const only = first !== undefined && known.every((each) => sameVm(each, first)) ? first : undefined;
    found.push(...own.map((each) => ({ ...each, identity: each.identity ?? only })));
  }
  return found;
}

async function whose(file: string): Promise<Omit<OldSet, 'folder' | 'set'>> {
  try {
    const { createdAt = '', vm } = v.parse(whoseSchema, JSON.parse(await readFile(file, 'utf8')));
    const identity = await identityFrom(vm.uuid, parsePlace(vm.qmp));
    return { identity, qmp: vm.qmp, ...defined({ qga: vm.qga }), createdAt };
  } catch {
    return { identity: undefined };
  }
}

/** The old sets of the VM. `name` is that of a folder in which nothing says whose its sets are. */
export async function oldSetsOf(stateDir: string, identity: VmIdentity, name: string): Promise<OldSet[]> {
  const all = await oldSets(stateDir);
  const mixed = new Set(all.filter((each) => each.identity !== undefined).map(({ folder }) => folder));
  return all.filter((each) =>
    each.identity === undefined ? each.folder === name && !mixed.has(each.folder) : sameVm(each.identity, identity),
  );
}

/** The name for each where there are sets of these names already: two folders may have used one name. */
export function namesFor(old: readonly OldSet[], taken: readonly string[]): Map<OldSet, string> {
  const used = new Set(taken);
  const names = new Map<OldSet, string>();
  for (const each of old) {
    let name = each.set;
    for (let turn = 1; used.has(name); turn++) {
      const suffix = turn === 1 ? `.${each.folder}` : `.${each.folder}-${turn}`;
      name = `${each.set.slice(0, Math.max(1, 100 - suffix.length))}${suffix}`.slice(-100);
    }
    used.add(name);
    names.set(each, name);
  }
  return names;
}

/**
 * Moves the VM's old sets into its folder; the caller holds its lock. Throws a UsageError if a process of an older version
 * is at one of them: then nothing was moved. Tells of each that had to be given another name.
 */
export async function migrateOldSets(
  stateDir: string,
  identity: VmIdentity,
  name: string,
  tell: (text: string) => void,
): Promise<void> {
  const old = await oldSetsOf(stateDir, identity, name);
  if (old.length === 0) return;
  for (const { folder, set } of old) {
    const journal = join(stateDir, folder, set, 'journal.json');
    const there = await readJournal(journal);
    if (there !== undefined && there.owner !== 'gone') throw busyError('E_SET_BUSY', set, journal, there);
  }
  const own = join(stateDir, identityKey(identity));
  await mkdir(own, { recursive: true, mode: 0o750 });
  for (const [each, newName] of namesFor(old, await setNames(own))) {
    await rename(join(stateDir, each.folder, each.set), join(own, newName));
    if (newName !== each.set)
      tell(`snapshot set ${each.set} of ${each.folder} is called ${newName} from now on: there is another of its name`);
  }
  await syncPath(own);
  for (const folder of new Set(old.map((each) => join(stateDir, each.folder)))) {
    await syncPath(folder);
    await rmdir(folder).catch((error: unknown) => {
      // Sets of another VM that had the name.
      if (!isErrno(error, 'ENOTEMPTY')) throw error;
    });
  }
  await syncPath(stateDir);
}
