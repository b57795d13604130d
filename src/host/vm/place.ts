// Where a monitor or an agent of a VM is reached: at a socket, or through libvirt. Users type and see one string, and
// the same string is stored: the path, or `libvirt:NAME` (libvirt/address.ts). It is read and written here, and nowhere
// else.
import { resolvedPath } from '../images/same-file.js';
import { libvirtAddress, parseLibvirtAddress, type LibvirtAddress } from './libvirt/address.js';

export type DomainPlace = { readonly kind: 'libvirt' } & LibvirtAddress;
export type Place = { readonly kind: 'socket'; readonly path: string } | DomainPlace;

/** A monitor of which nobody knows where it is. */
export const nowhere: Place = { kind: 'socket', path: '' };

export function isSomewhere(place: Place): boolean {
  return place.kind === 'libvirt' || place.path !== '';
}

export function socketAt(path: string): Place {
  return { kind: 'socket', path };
}

export function domainAt(address: LibvirtAddress): DomainPlace {
  return { kind: 'libvirt', ...address };
}

export function parsePlace(text: string): Place {
  const address = parseLibvirtAddress(text);
  return address === undefined ? socketAt(text) : domainAt(address);
}

export function placeText(place: Place): string {
  return place.kind === 'socket' ? place.path : libvirtAddress(place);
}

/** One spelling for each way to a socket: no symbolic link is left in its path. */
export async function resolvedPlace(place: Place): Promise<Place> {
  return place.kind === 'socket' ? socketAt(await resolvedPath(place.path)) : place;
}

/** The text of the resolved place: how it is stored, and compared with what is stored. */
export async function resolvedText(place: Place): Promise<string> {
  return placeText(await resolvedPlace(place));
}
