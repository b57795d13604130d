// The monitors at which a set's VM may be: the one the set was made through, and the one named on the command line.
import { realpath } from 'node:fs/promises';
import { UnreachableError } from '../errors.js';
import { QmpClient } from '../qmp/client.js';

export interface Monitors extends AsyncDisposable {
  /** Those that answer; none if the VM is shut off. */
  readonly open: readonly QmpClient[];
}

/**
 * Connects to each socket once. Throws an UnreachableError for one that is there but does not answer as a monitor does:
 * it is in use, so the VM runs.
 */
export async function openMonitors(paths: readonly string[], timeoutMs: number): Promise<Monitors> {
  const open: QmpClient[] = [];
  const close = (): Promise<void> => {
    for (const client of open) client.close();
    return Promise.resolve();
  };
  try {
    const sockets = await Promise.all(paths.map((path) => realpath(path).catch(() => path)));
    for (const socket of new Set(sockets)) {
      const client = await monitorIfThere(socket, timeoutMs);
      if (client !== undefined) open.push(client);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { open, [Symbol.asyncDispose]: close };
}

async function monitorIfThere(path: string, timeoutMs: number): Promise<QmpClient | undefined> {
  try {
    return await QmpClient.connect(path, { timeoutMs });
  } catch (error) {
    // Nobody there: shut off. Somebody who does not greet: in use, so running.
    if (error instanceof UnreachableError && error.code === 'E_MONITOR') return undefined;
    throw error;
  }
}
