// Which VMs `recover` looks at: one that is named, or all that the configuration and the state directory know; and what in
// the state directory is no VM's.
import { join } from 'node:path';
import { describeError } from '../../errors.js';
import { everySet } from '../sets/claims.js';
import { readJournal } from '../sets/journal.js';
import { knownVms } from '../sets/known-vms.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import type { Manifest } from '../sets/manifest.js';
import { oldSets } from '../sets/old-folders.js';
import { setNames } from '../sets/set-names.js';
import { readRecord, stateFolders } from '../sets/vm-record.js';
import { identityKey, resolvedAddress, sameVm, uuidPattern, type VmIdentity } from '../vm/identity.js';
import { parseLibvirtAddress } from '../vm/libvirt/address.js';
import { readConfiguredVms, type Vm } from '../vm/vm.js';

export interface RecoverTarget {
  /** How it was named, or reached last. Its identity, if it has one, is what it was recorded as. */
  readonly vm: Vm;
  /** An entry of the configuration: its name says where it is. */
  readonly configured: boolean;
}

export interface RecoverableVm {
  readonly name: string;
  readonly identity: VmIdentity;
  /** Its monitors: as configured or given, and those its sets were made through. */
  readonly qmp: readonly string[];
  /** The agent's socket, if it is known. */
  readonly qga: string | undefined;
  readonly configured: boolean;
}

/**
 * Those of the configuration (which may be missing: then `mustExist` decides) and those of the state directory. One VM may be
 * named twice. Throws a UsageError if either cannot be read.
 */
export async function allTargets(
  stateDir: string,
  config: string,
  mustExist: boolean,
): Promise<readonly RecoverTarget[]> {
  const configured = await readConfiguredVms(config, mustExist);
  const taken = new Set(configured.map(({ name }) => name));
  const targets: RecoverTarget[] = configured.map((vm) => ({ vm, configured: true }));
  for (const { identity, names, qmp, qga } of await knownVms(stateDir)) {
    const key = identityKey(identity);
    // A name that stands for another one is no name.
    const name = names.find((each) => !taken.has(each)) ?? key;
    taken.add(name);
    const agent = qga[0] === undefined ? {} : { qga: qga[0] };
    targets.push({ vm: { name, identity, qmp: qmp[0] ?? '', ...agent }, configured: false });
  }
  return targets.sort((a, b) => Number(b.configured) - Number(a.configured) || (a.vm.name < b.vm.name ? -1 : 1));
}

/** The VM with all ways to it that are known. */
export async function withKnownWays(
  stateDir: string,
  { vm, configured }: RecoverTarget,
  identity: VmIdentity,
  store: ManifestStore,
): Promise<RecoverableVm> {
  const known = (await knownVms(stateDir)).find((each) => sameVm(each.identity, identity));
  const bySets = await waysOfSets(store);
  const all = [vm.qmp, ...(known?.qmp ?? []), ...bySets.qmp].filter((where) => where !== '');
  const qmp = new Set(await Promise.all(all.map(resolvedAddress)));
  const isDomain = parseLibvirtAddress(all[0] ?? '') !== undefined;
  const qga = [...bySets.qga, ...(known?.qga ?? [])].find(
    (each) => (parseLibvirtAddress(each) !== undefined) === isDomain,
  );
  return { name: vm.name, identity, qmp: [...qmp], qga: vm.qga ?? qga, configured };
}

async function waysOfSets(store: ManifestStore): Promise<{ qmp: readonly string[]; qga: readonly string[] }> {
  const { manifests } = await store.readAll();
  const qga: string[] = [];
  for (const set of await store.names()) {
    const hold = (await readJournal(store.journalFile(set)))?.entry?.hold;
    if (hold !== undefined) qga.push(hold.qga);
  }
  // The newest know best.
  const newest = manifests.toReversed();
  return {
    qmp: newest.map(({ vm }) => vm.qmp),
    qga: [...qga, ...newest.flatMap(({ vm }) => (vm.qga === undefined ? [] : [vm.qga]))],
  };
}

export interface Ownerless {
  /** Below the state directory. */
  readonly folder: string;
  readonly reason: string;
}

/** What nobody can say whose it is. Throws a UsageError if the state directory cannot be listed. */
export async function ownerless(stateDir: string): Promise<readonly Ownerless[]> {
  const found: Ownerless[] = [];
  for (const folder of await stateFolders(stateDir)) {
    try {
      await setNames(join(stateDir, folder));
      if (!uuidPattern.test(folder)) await readRecord(stateDir, folder);
    } catch (error) {
      found.push({ folder, reason: describeError(error) });
    }
  }
  for (const { folder, set, identity } of await oldSets(stateDir)) {
    if (identity !== undefined) continue;
    found.push({ folder: join(folder, set), reason: 'nothing in it says which VM it is of' });
  }
  return found;
}

/** What the sets of every VM lie on: an overlay of one may be another's base. */
export async function allManifests(stateDir: string): Promise<readonly Manifest[]> {
  return (await everySet(stateDir)).manifests;
}
