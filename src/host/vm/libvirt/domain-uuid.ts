// Asks libvirt for the UUID of a domain, which may be shut off.
import { UnreachableError } from '../../../errors.js';
import type { LibvirtAddress } from './address.js';
import { Virsh } from './virsh.js';

/** Throws what Virsh.run does: an UnreachableError `E_MONITOR` if libvirt has no such domain. */
export async function domainUuid(address: LibvirtAddress, timeoutMs: number): Promise<string> {
  await using virsh = new Virsh(address);
  // Not domuuid: that knows no domain by its UUID.
  const uuid = /^UUID:\s+(\S+)$/m.exec(await virsh.run('dominfo', [], timeoutMs))?.[1];
  if (uuid !== undefined) return uuid;
  throw new UnreachableError('E_MONITOR_PROTOCOL', `${virsh.where}: virsh dominfo names no UUID`);
}
