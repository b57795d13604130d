// Looks at the port behind the agent's socket, as QEMU knows it. A socket that is no chardev of this QEMU may lead to
// another guest. When the guest's agent dies, its channel stays open on the host's side, and a freeze would be waited
// for as long as it may take; but QEMU tells when the guest closes the port. Specification: QEMU qapi/char.json,
// VSERPORT_CHANGE.
import { QuiesceError } from '../../errors.js';
import type { QmpClient } from '../../qmp/client.js';
import { runQmp, type QmpReply } from '../../qmp/commands.js';
import type { Monitor } from '../../qmp/monitor.js';
import { propertyOf } from '../../qmp/qdev.js';
import { sameFile } from '../images/same-file.js';
import { socketsOf } from '../images/socket-owner.js';

/** How long one wait lasts, in a watch that ends when it is disposed: a limit that no freeze reaches. */
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

/** True if the socket is the host's end of one of this QEMU's chardevs. Throws what `runQmp` does. */
export async function isPortOf(monitor: Monitor, agentSocket: string): Promise<boolean> {
  return (await portOf(monitor, agentSocket)) !== undefined;
}

/** The name by which the guest knows the port behind the agent's socket; undefined if it is none of virtio-serial. */
export async function agentPortName(monitor: Monitor, agentSocket: string): Promise<string | undefined> {
  const chardev = await portOf(monitor, agentSocket);
  if (chardev === undefined) return undefined;
  for (const parent of ['/machine/peripheral', '/machine/peripheral-anon']) {
    for (const { name, type } of await runQmp(monitor, 'qom-list', { path: parent })) {
      if (type !== 'child<virtserialport>') continue;
      const path = `${parent}/${name}`;
      if ((await propertyOf(monitor, path, 'chardev')) !== chardev.label) continue;
      const port = await propertyOf(monitor, path, 'name');
      if (typeof port === 'string' && port !== '') return port;
    }
  }
  return undefined;
}

async function isOpen(monitor: Monitor, agentSocket: string): Promise<boolean> {
  return (await portOf(monitor, agentSocket))?.['frontend-open'] === true;
}

async function portOf(monitor: Monitor, agentSocket: string): Promise<QmpReply<'query-chardev'>[number] | undefined> {
  for (const chardev of await runQmp(monitor, 'query-chardev', {})) {
    const path = socketOf(chardev.filename);
    if (path === undefined) continue;
    // The socket may be named by another spelling, or by another link to it.
    for (const own of await socketsOf(monitor.path, path)) if (await sameFile(own, agentSocket)) return chardev;
  }
  return undefined;
}

// `unix:/run/vm/qga.sock,server=on`, `disconnected:` before it while nobody is there. One that QEMU itself connects to
// is somebody else's socket, who may serve several VMs by it.
function socketOf(filename: string): string | undefined {
  return /^(?:disconnected:)?unix:(.+),server(?:=on)?$/.exec(filename)?.[1];
}
