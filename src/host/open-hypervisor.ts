// Where a VM is: the path of a monitor socket, or `libvirt:NAME` (libvirt/address.ts).
import type { QmpConnectOptions } from '../qmp/client.js';
import type { Hypervisor } from './hypervisor.js';
import { parseLibvirtAddress } from './libvirt/address.js';
import { LibvirtDomain } from './libvirt/domain.js';
import { PlainQemu } from './plain-qemu.js';

/**
 * Opens it; the caller closes it. Throws an UnreachableError; its code is `E_MONITOR` if nobody is there: the VM is shut
 * off.
 */
export async function openHypervisor(where: string, options: QmpConnectOptions): Promise<Hypervisor> {
  const address = parseLibvirtAddress(where);
  return address === undefined ? await PlainQemu.connect(where, options) : await LibvirtDomain.open(address, options);
}
