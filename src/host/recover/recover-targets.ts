// Finds the VMs that `recover` looks at: one that is named, or all that the configuration and the state directory know;
// and what in the state directory is no VM's.
import { join } from 'node:path';
import { describeError } from '../../errors.js';
import { everySet } from '../sets/claims.js';
import { readJournal } from '../sets/journal.js';
import { knownVms } from '../sets/known-vms.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { monitorOf, type Manifest } from '../sets/manifest.js';
import { oldSets } from '../sets/old-folders.js';
import { setNames } from '../sets/set-names.js';
import { readRecord, stateFolders } from '../sets/vm-record.js';
import { identityKey, sameVm, uuidPattern, type VmIdentity } from '../vm/identity.js';
import { isSomewhere, nowhere, parsePlace, placeText, resolvedPlace, type Place } from '../vm/place.js';
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
  /** Where its monitors are: as configured or given, and those its sets were made through. */
  readonly monitors: readonly Place[];
  /** Where its agent is, if that is known. */
  readonly agent: Place | undefined;
  readonly configured: boolean;
}

/**
 * The VMs of the configuration (which may be missing: then `mustExist` decides) and those of the state directory. One VM may
 * be named twice. Throws a UsageError if either cannot be read.
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
    // A name that stands for another VM does not name this one.
    const name = names.find((each) => !taken.has(each)) ?? key;
    taken.add(name);
    const monitor = qmp[0] === undefined ? nowhere : parsePlace(qmp[0]);
    const agent = qga[0] === undefined ? {} : { agent: parsePlace(qga[0]) };
    targets.push({ vm: { name, identity, monitor, ...agent }, configured: false });
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
  const all = [vm.monitor, ...(known?.qmp ?? []).map(parsePlace), ...bySets.monitors].filter(isSomewhere);
  const resolved = await Promise.all(all.map(resolvedPlace));
  const monitors = [...new Map(resolved.map((place) => [placeText(place), place])).values()];
  // Monitor and agent are both at libvirt, or neither is.
  const kind = all[0]?.kind ?? 'socket';
  const agent = [...bySets.agents, ...(known?.qga ?? []).map(parsePlace)].find((place) => place.kind === kind);
  return { name: vm.name, identity, monitors, agent: vm.agent ?? agent, configured };
}

interface Ways {
  readonly monitors: readonly Place[];
  readonly agents: readonly Place[];
}

async function waysOfSets(store: ManifestStore): Promise<Ways> {
  const { manifests } = await store.readAll();
  const held: string[] = [];
  for (const set of await store.names()) {
    const hold = (await readJournal(store.journalFile(set)))?.entry?.hold;
    if (hold !== undefined) held.push(hold.qga);
  }
  // The newest know best.
  const newest = manifests.toReversed();
  return {
    monitors: newest.map(monitorOf),
    agents: [...held, ...newest.flatMap(({ vm }) => vm.qga ?? [])].map(parsePlace),
  };
}

export interface Ownerless {
  /** Below the state directory. */
  readonly folder: string;
  readonly reason: string;
}

/** Folders of which nobody can say whose they are. Throws a UsageError if the state directory cannot be listed. */
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

/** The sets of every VM: an overlay of one may be another's base. */
export async function allManifests(stateDir: string): Promise<readonly Manifest[]> {
  return (await everySet(stateDir)).manifests;
}
