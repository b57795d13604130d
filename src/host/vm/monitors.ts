// Opens the monitors at which a VM may be: those its sets were made through, and the one named on the command line. The
// VM is shut off only where it is known that nobody listens; if anything else keeps a monitor from answering, a QEMU
// may be there.
import { DeadlineError, UnreachableError, type BridgeError } from '../../errors.js';
import type { Monitor } from '../../qmp/monitor.js';
import type { Hypervisor } from './hypervisor.js';
import { identityOf, sameVm, type VmIdentity } from './identity.js';
import { openHypervisor } from './open-hypervisor.js';
import { placeText, resolvedPlace, type Place } from './place.js';
import { isBound } from '../images/socket-owner.js';

export interface Monitors extends AsyncDisposable {
  /** The monitors that answer. */
  readonly open: readonly Hypervisor[];
  /** Why others did not, though somebody may be there. With none open: whether the VM runs is not known. */
  readonly silent: readonly BridgeError[];
}

/**
 * Connects to each once, and keeps those that are the VM's (any, without `identity`). Throws an UnreachableError or a
 * DeadlineError if none answers, and one of them is not known to be off. One that is silent beside one that answers may
 * be another way to the same monitor, which serves one client at a time.
 */
export async function openMonitors(
  places: readonly Place[],
  timeoutMs: number,
  identity?: VmIdentity,
): Promise<Monitors> {
  const monitors = await tryMonitors(places, timeoutMs, identity);
  const [error] = monitors.silent;
  if (monitors.open.length === 0 && error !== undefined) throw error;
  return monitors;
}

/** `openMonitors`, but tells of silent monitors instead of throwing. */
export async function tryMonitors(
  places: readonly Place[],
  timeoutMs: number,
  identity?: VmIdentity,
): Promise<Monitors> {
  const open: Hypervisor[] = [];
  const silent: BridgeError[] = [];
  const close = async (): Promise<void> => {
    for (const each of open) await each[Symbol.asyncDispose]();
  };
  try {
    const resolved = await Promise.all(places.map(resolvedPlace));
    for (const place of new Map(resolved.map((each) => [placeText(each), each])).values()) {
      const found = await openOne(place, timeoutMs, identity);
      if (found instanceof Error) silent.push(found);
      else if (found !== undefined) open.push(found);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { open, silent, [Symbol.asyncDispose]: close };
}

async function openOne(
  place: Place,
  timeoutMs: number,
  identity: VmIdentity | undefined,
): Promise<Hypervisor | BridgeError | undefined> {
  let hypervisor: Hypervisor;
  try {
    hypervisor = await openHypervisor(place, { timeoutMs });
  } catch (error) {
    if (await meansShutOff(error, place)) return undefined;
    if (error instanceof UnreachableError || error instanceof DeadlineError) return error;
    throw error;
  }
  try {
    if (await isOf(hypervisor, identity)) return hypervisor;
  } catch (error) {
    await hypervisor[Symbol.asyncDispose]();
    if (error instanceof UnreachableError || error instanceof DeadlineError) return error;
    throw error;
  }
  await hypervisor[Symbol.asyncDispose]();
  return undefined;
}

/** False if the monitor's socket, or its name, is another VM's by now; without `identity` any monitor is the VM's. */
export async function isOf(monitor: Monitor, identity: VmIdentity | undefined): Promise<boolean> {
  return identity?.kind !== 'uuid' || sameVm(await identityOf(monitor), identity);
}

/** True if what was thrown when the monitor was opened says that no QEMU is behind it. */
export async function meansShutOff(error: unknown, place: Place): Promise<boolean> {
  if (!(error instanceof UnreachableError) || error.code !== 'E_MONITOR') return false;
  if (place.kind === 'libvirt' || error.facts['errno'] === 'ENOENT') return true;
  // A refused name may have been bound by somebody else after the QEMU that still listens, or one is about to listen.
  return !(await isBound(place.path));
}
