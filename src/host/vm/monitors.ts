// The monitors at which a set's VM may be: the one the set was made through, and the one named on the command line.
import { realpath } from 'node:fs/promises';
import { UnreachableError } from '../../errors.js';
import type { Hypervisor } from './hypervisor.js';
import { openHypervisor } from './open-hypervisor.js';

export interface Monitors extends AsyncDisposable {
  /** Those that answer; none if the VM is shut off. */
  readonly open: readonly Hypervisor[];
}

/**
 * Connects to each socket once. Throws an UnreachableError for one that is there but does not answer as a monitor does:
 * it is in use, so the VM runs.
 */
export async function openMonitors(paths: readonly string[], timeoutMs: number): Promise<Monitors> {
  const open: Hypervisor[] = [];
  const close = async (): Promise<void> => {
    for (const each of open) await each[Symbol.asyncDispose]();
  };
  try {
    const sockets = await Promise.all(paths.map((path) => realpath(path).catch(() => path)));
    for (const socket of new Set(sockets)) {
      const hypervisor = await openIfThere(socket, timeoutMs);
      if (hypervisor !== undefined) open.push(hypervisor);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { open, [Symbol.asyncDispose]: close };
}

async function openIfThere(path: string, timeoutMs: number): Promise<Hypervisor | undefined> {
  try {
    return await openHypervisor(path, { timeoutMs });
  } catch (error) {
    // Nobody there: shut off. Somebody who does not greet: in use, so running.
    if (error instanceof UnreachableError && error.code === 'E_MONITOR') return undefined;
    throw error;
  }
}
