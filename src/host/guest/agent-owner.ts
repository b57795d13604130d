// Finds out whether the agent that answers is the one in this VM's guest. The agent of another VM must never be taken:
// its guest would be held, and the disks of this one cut as if they were still.
import { isAbsolute } from 'node:path';
import type { Monitor } from '../../qmp/monitor.js';
import { isPortOf } from '../vm/agent-port.js';
import { identityOf } from '../vm/identity.js';
import { placeText, type Place } from '../vm/place.js';
import type { GuestAgent } from './guest-agent.js';

/**
 * Why the agent is not known to be the VM's; undefined if it is. libvirt vouches for its own; else the socket is one of
 * QEMU's ports; behind a relay, the guest sees the VM's UUID in its machine. Throws what `runQmp` does.
 */
export async function whyNotItsAgent(monitor: Monitor, place: Place, agent: GuestAgent): Promise<string | undefined> {
  // Where libvirt is asked for the disks, it is asked for the agent by the same name (vm/vm.ts).
  if (place.kind === 'libvirt' && !isAbsolute(monitor.path)) return undefined;
  const address = placeText(place);
  if (await isPortOf(monitor, address)) return undefined;
  const identity = await identityOf(monitor);
  const socket = `${address} is none of this QEMU's sockets`;
  if (identity.kind !== 'uuid') return `${socket}, and the VM has no UUID that its guest could tell`;
  const found = (await agent.machineUuid())?.toLowerCase();
  if (found === identity.uuid) return undefined;
  const guest =
    found === undefined ? 'the guest does not tell the UUID of its machine' : `its guest is in machine ${found}`;
  return `${socket}, and ${guest}, expected ${identity.uuid}`;
}
