// Which VMs `recover` looks at: one that is named, or all that the configuration and the state directory know.
import { readdir } from 'node:fs/promises';
import { UsageError } from '../../errors.js';
import { isErrno } from '../errno.js';
import { everySet } from '../sets/claims.js';
import { readJournal } from '../sets/journal.js';
import type { Manifest } from '../sets/manifest.js';
import { ManifestStore } from '../sets/manifest-store.js';
import { readConfiguredVms, type Vm } from '../vm/vm.js';

export interface RecoverableVm {
  readonly name: string;
  /** Its monitors: as configured or given, and those its sets were made through. */
  readonly qmp: readonly string[];
  /** The agent's socket, if it is known. */
  readonly qga: string | undefined;
  /** An entry of the configuration: its name says where it is. */
  readonly configured: boolean;
}

/** The VM that was named, with the sockets its sets know. */
export async function recoverableVm(stateDir: string, vm: Vm, configured: boolean): Promise<RecoverableVm> {
  return { ...withSockets(vm.name, vm, await readSets(new ManifestStore(stateDir, vm.name))), configured };
}

/**
 * All VMs of the state directory and of the configuration (which may be missing: then `mustExist` decides). Throws a
 * UsageError if either cannot be read.
 */
export async function allRecoverableVms(
  stateDir: string,
  config: string,
  mustExist: boolean,
): Promise<readonly RecoverableVm[]> {
  const configured = await readConfiguredVms(config, mustExist);
  const names = new Set([...configured.map(({ name }) => name), ...(await vmNames(stateDir))]);
  const vms: RecoverableVm[] = [];
  for (const name of [...names].sort()) {
    const entry = configured.find((vm) => vm.name === name);
    vms.push(withSockets(name, entry, await readSets(new ManifestStore(stateDir, name))));
  }
  return vms;
}

/** What the sets of every VM lie on: an overlay of one may be another's base. */
export async function allManifests(stateDir: string): Promise<readonly Manifest[]> {
  return (await everySet(stateDir)).manifests;
}

async function vmNames(stateDir: string): Promise<string[]> {
  try {
    const entries = await readdir(stateDir, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.')).map(({ name }) => name);
  } catch (cause) {
    if (isErrno(cause, 'ENOENT')) return [];
    throw new UsageError('E_STATE_DIR', `cannot list ${stateDir}`, { cause });
  }
}

interface KnownSockets {
  readonly qmp: readonly string[];
  readonly qga: readonly string[];
}

async function readSets(store: ManifestStore): Promise<KnownSockets> {
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

function withSockets(name: string, vm: Vm | undefined, known: KnownSockets): RecoverableVm {
  const qmp = [...new Set([...(vm === undefined ? [] : [vm.qmp]), ...known.qmp])];
  return { name, qmp, qga: vm?.qga ?? known.qga[0], configured: vm !== undefined };
}
