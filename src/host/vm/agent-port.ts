// Sees the guest's agent die. Its channel stays open on the host's side, so that a freeze would be waited for as long as
// it may take; but QEMU tells when the guest closes the port. Specification: QEMU qapi/char.json, VSERPORT_CHANGE.
import { realpath } from 'node:fs/promises';
import { QuiesceError } from '../../errors.js';
import type { QmpClient } from '../../qmp/client.js';
import { runQmp } from '../../qmp/commands.js';

/** Until disposed; a limit that no freeze reaches. */
const WATCH_MS = 24 * 3600 * 1000;

export interface PortWatch extends Disposable {
  /** Aborted, with a QuiesceError, once the guest has closed the agent's port. */
  readonly signal: AbortSignal;
}

/** Watches the port behind the agent's socket, or any port if QEMU names that socket otherwise. */
export function watchAgentPort(monitor: QmpClient, agentSocket: string): PortWatch {
  const listener = monitor.listen('VSERPORT_CHANGE', ({ data }) => data['open'] === false);
  const controller = new AbortController();
  const watch = async (): Promise<void> => {
    for (;;) {
      await listener.next(WATCH_MS);
      if (await isOpen(monitor, agentSocket)) continue;
      controller.abort(new QuiesceError('E_AGENT_GONE', "the guest's agent closed its port"));
      return;
    }
  };
  // Disposed, or the monitor is gone: the freeze has its own limit then.
  void watch().catch(() => undefined);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      listener[Symbol.dispose]();
    },
  };
}

// `unix:/run/vm/qga.sock,server=on`, with more before and behind it.
async function isOpen(monitor: QmpClient, agentSocket: string): Promise<boolean> {
  const paths = [agentSocket, await realpath(agentSocket).catch(() => agentSocket)];
  const port = (await runQmp(monitor, 'query-chardev', {})).find(({ filename }) =>
    paths.some((path) => `${filename},`.includes(`unix:${path},`)),
  );
  return port?.['frontend-open'] === true;
}
