// Opens the hypervisor that runs a VM: plain QEMU, or a libvirt domain. What only a domain needs is loaded when one is
// opened: before anything is held, and not in every call of the tool.
import type { Hypervisor, OpenOptions } from './hypervisor.js';
import type { Place } from './place.js';
import { PlainQemu } from './plain-qemu.js';

/**
 * Opens it; the caller closes it. Throws an UnreachableError, with the code `E_MONITOR` if nobody is there: the VM is shut
 * off; and a UsageError if its images are on another host.
 */
export async function openHypervisor(place: Place, options: OpenOptions): Promise<Hypervisor> {
  if (place.kind === 'socket') return await PlainQemu.connect(place.path, options);
  const { LibvirtDomain } = await import('./libvirt/domain.js');
  return await LibvirtDomain.open(place, options);
}
