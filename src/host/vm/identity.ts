// Tells one VM from another, whatever they are called and however they are reached: by the UUID that QEMU and libvirt
// know. A plain QEMU that was started without one (all zeros) is known by its monitor's socket alone.
import { createHash } from 'node:crypto';
import { runQmp } from '../../qmp/commands.js';
import type { Monitor } from '../../qmp/monitor.js';
import { nameFromPath } from './names.js';
import { resolvedText, socketAt, type Place } from './place.js';

export type VmIdentity =
  | { readonly kind: 'uuid'; readonly uuid: string }
  /** The address of its monitor: a resolved path, or `libvirt:NAME` for a domain that libvirt no longer knows. */
  | { readonly kind: 'address'; readonly address: string };

export const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const NO_UUID = '00000000-0000-0000-0000-000000000000';

/** The identity of the VM whose monitor this is. Throws what `runQmp` does. */
export async function identityOf(monitor: Monitor): Promise<VmIdentity> {
  const { UUID: uuid } = await runQmp(monitor, 'query-uuid', {});
  return await identityFrom(uuid, socketAt(monitor.path));
}

/** The identity of a VM with this UUID, as it is known or recorded, whose monitor is or was at `where`. */
export async function identityFrom(uuid: string | undefined, where: Place): Promise<VmIdentity> {
  const known = uuid?.toLowerCase();
  if (known !== undefined && known !== NO_UUID && uuidPattern.test(known)) return { kind: 'uuid', uuid: known };
  return { kind: 'address', address: await resolvedText(where) };
}

/** Names the folder of its sets: one path component, different for different VMs. */
export function identityKey(identity: VmIdentity): string {
  if (identity.kind === 'uuid') return identity.uuid;
  // Two paths may give one name.
  const hash = createHash('sha256').update(identity.address).digest('hex').slice(0, 8);
  return `at-${nameFromPath(identity.address, 80)}-${hash}`;
}

export function sameVm(one: VmIdentity, other: VmIdentity): boolean {
  return identityKey(one) === identityKey(other);
}

/**
 * Where the VM is that was reached at `place` once. A domain is named by its UUID, since it may have been renamed, and
 * another may have its name; a socket, or a VM without a UUID, stays as it is.
 */
export function placeNow(place: Place, identity: VmIdentity | undefined): Place {
  if (place.kind === 'socket' || identity?.kind !== 'uuid') return place;
  return { ...place, domain: identity.uuid };
}

/** For people. */
export function describeIdentity(identity: VmIdentity): string {
  return identity.kind === 'uuid' ? `UUID ${identity.uuid}` : `no UUID, its monitor ${identity.address} stands for it`;
}
