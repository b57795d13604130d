// Where a VM is: the path of a monitor socket, or `libvirt:NAME` (libvirt/address.ts). What only a domain needs is loaded
// when one is opened: before anything is held, and not in every call of the tool.
import type { Hypervisor, OpenOptions } from './hypervisor.js';
import { parseLibvirtAddress } from './libvirt/address.js';
import { PlainQemu } from './plain-qemu.js';

/**
 * Opens it; the caller closes it. Throws an UnreachableError; its code is `E_MONITOR` if nobody is there: the VM is shut
 * off. A UsageError if its images are on another host.
 */
export async function openHypervisor(where: string, options: OpenOptions): Promise<Hypervisor> {
  const address = parseLibvirtAddress(where);
  if (address === undefined) return await PlainQemu.connect(where, options);
  const { LibvirtDomain } = await import('./libvirt/domain.js');
  return await LibvirtDomain.open(address, options);
}
