// Whether the agent that answers is the guest's of this VM. A socket of another VM must never be taken: its guest would be
// held, and the disks of this one cut as if they were still.
import { isAbsolute } from 'node:path';
import type { Monitor } from '../../qmp/monitor.js';
import { isPortOf } from '../vm/agent-port.js';
import { identityOf } from '../vm/identity.js';
import { parseLibvirtAddress } from '../vm/libvirt/address.js';
import type { GuestAgent } from './guest-agent.js';

/**
 * Why it is not known to be the VM's; undefined if it is: by libvirt, which has both; by QEMU, one of whose ports the socket
 * is; behind a relay by the UUID that the guest sees in its machine. Throws what `runQmp` does.
 */
export async function whyNotItsAgent(
  monitor: Monitor,
  agentAddress: string,
  agent: GuestAgent,
): Promise<string | undefined> {
  // Where libvirt is asked for the disks, it is asked for the agent by the same name (vm/vm.ts).
  if (parseLibvirtAddress(agentAddress) !== undefined && !isAbsolute(monitor.path)) return undefined;
  if (await isPortOf(monitor, agentAddress)) return undefined;
  const identity = await identityOf(monitor);
  const socket = `${agentAddress} is none of this QEMU's sockets`;
  if (identity.kind !== 'uuid') return `${socket}, and the VM has no UUID that its guest could tell`;
  const found = (await agent.machineUuid())?.toLowerCase();
  if (found === identity.uuid) return undefined;
  const guest =
    found === undefined ? 'the guest does not tell the UUID of its machine' : `its guest is in machine ${found}`;
  return `${socket}, and ${guest}, expected ${identity.uuid}`;
}
