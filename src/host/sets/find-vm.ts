// Finds out which VM stands behind a name and sockets, and opens its sets to be looked at. The VM's monitor says which
// it is; if nobody answers there, the state directory does, by how VMs were reached before.
import { join } from 'node:path';
import { BridgeError, DeadlineError, UnreachableError, UsageError } from '../../errors.js';
import type { Hypervisor } from '../vm/hypervisor.js';
import { describeIdentity, identityFrom, identityKey, identityOf, sameVm, type VmIdentity } from '../vm/identity.js';
import { openHypervisor } from '../vm/open-hypervisor.js';
import { placeText, type Place } from '../vm/place.js';
import type { Vm } from '../vm/vm.js';
import { knownAs, theOne } from './known-vms.js';
import { ManifestStore } from './manifest-store.js';
import { namesFor, oldSetsOf } from './old-folders.js';
import { setNames } from './set-names.js';

export interface FoundVm {
  readonly identity: VmIdentity;
  /** True if QEMU or libvirt says so; else it is known by how it was reached before. */
  readonly isSure: boolean;
}

/**
 * Which VM it is. Throws a UsageError if nobody answers and several VMs had this name and place, and what is thrown for a
 * socket that is no monitor's.
 */
export async function identify(stateDir: string, vm: Vm, timeoutMs: number): Promise<FoundVm> {
  if (vm.identity !== undefined) return { identity: vm.identity, isSure: false };
  try {
    return { identity: await askIdentity(vm.monitor, timeoutMs), isSure: true };
  } catch (error) {
    if (!(error instanceof UnreachableError) && !(error instanceof DeadlineError)) throw error;
    return { identity: await recordedIdentity(stateDir, vm), isSure: false };
  }
}

async function askIdentity(place: Place, timeoutMs: number): Promise<VmIdentity> {
  if (place.kind === 'libvirt') {
    // libvirt also knows a domain that is shut off.
    const { domainUuid } = await import('../vm/libvirt/domain-uuid.js');
    return await identityFrom(await domainUuid(place, timeoutMs), place);
  }
  await using monitor = await openHypervisor(place, { timeoutMs });
  return await identityOf(monitor);
}

/** The identity by how VMs were reached before; for a VM that nobody knows, its monitor's address. */
async function recordedIdentity(stateDir: string, vm: Vm): Promise<VmIdentity> {
  if (vm.identity !== undefined) return vm.identity;
  const known = theOne(vm.name, await knownAs(stateDir, vm));
  return known?.identity ?? (await identityFrom(undefined, vm.monitor));
}

/** Throws a UsageError if the VM behind the monitor is not the one that was named. */
export async function identifyOpen(hypervisor: Hypervisor, vm: Vm): Promise<VmIdentity> {
  const identity = await identityOf(hypervisor);
  if (vm.identity === undefined || sameVm(identity, vm.identity)) return identity;
  const [found, expected] = [identity, vm.identity].map(describeIdentity);
  throw new UsageError(
    'E_OTHER_VM',
    `the monitor at ${placeText(vm.monitor)} is another VM's: expected ${expected ?? ''}, found ${found ?? ''}; nothing was done`,
  );
}

/** The VM's sets, to be read: those that an older version left elsewhere included, where they lie. */
export async function readableStore(stateDir: string, identity: VmIdentity, vm: Vm): Promise<ManifestStore> {
  const key = identityKey(identity);
  const old = await oldSetsOf(stateDir, identity, vm.name);
  const own = await setNames(join(stateDir, key));
  const places = new Map([...namesFor(old, own)].map(([{ folder, set }, name]) => [name, join(stateDir, folder, set)]));
  return new ManifestStore(stateDir, key, { ...storeView(stateDir, identity, vm), old: places });
}

/** The view that a store of this VM has of its VM, for its messages. */
export function storeView(stateDir: string, identity: VmIdentity, vm: Vm) {
  const label = vm.name === identityKey(identity) ? vm.name : `${vm.name} (${describeIdentity(identity)})`;
  return { name: label, identity, elsewhere: async (set: string) => await whereElse(stateDir, identity, vm, set) };
}

// The hint at a VM that had the name, or the sockets, before this one was made.
async function whereElse(stateDir: string, identity: VmIdentity, vm: Vm, set: string): Promise<string | undefined> {
  try {
    const others = (await knownAs(stateDir, vm)).filter((each) => !sameVm(each.identity, identity));
    const [other] = others.filter(({ sets }) => sets.includes(set));
    if (other === undefined) return undefined;
    return `another VM that was reached as ${vm.name} before has one: --vm ${identityKey(other.identity)}`;
  } catch (error) {
    if (error instanceof BridgeError) return undefined;
    throw error;
  }
}
