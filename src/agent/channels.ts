// Opens the channels: the host's (virtio port, serial line or socket), if there is one, and our own sockets in the
// guest. A host's channel that fails is opened again every 5 s if the settings say so (qemu-ga's -r). Otherwise its
// failure ends the agent, and the unit starts it anew. Who is served on them: serving.ts.
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { defined } from '../defined.js';
import { describeError } from '../errors.js';
import type { Logger } from '../log.js';
import type { Listener, OnStream } from '../transport/byte-stream.js';
import type { ActivatedSocket } from './activation.js';
import { makeLineRaw } from '../transport/serial-line.js';
import { openSerialPort } from '../transport/serial-port.js';
import { listenOnUnixSocket } from '../transport/unix-socket.js';
import { encodeLine } from '../wire/encode.js';

export const channelMethods = ['virtio-serial', 'isa-serial', 'unix-listen', 'vsock-listen', 'none'] as const;
/** `none`: there is no host to be asked by, only programs in the guest. */
export type ChannelMethod = (typeof channelMethods)[number];

export interface HostChannelOptions {
  readonly method: Exclude<ChannelMethod, 'none'>;
  readonly path: string;
  /** The socket that listens already (`activatedSocket`); `path` is then a name for it. */
  readonly activated?: ActivatedSocket;
  readonly retry: boolean;
  readonly onStream: OnStream;
  /** The channel is lost and is not opened again. */
  readonly onLost: (error: Error) => void;
  readonly log: Logger;
}

const RETRY_MS = 5000;
const LOCAL_CLIENTS = 32;
const tooMany = { class: 'GenericError', desc: `too many clients: ${LOCAL_CLIENTS} are connected already` } as const;
const LOCAL_GROUP = 'fsfreeze-bridge';

/** Opens the host's channel. Without `retry`, throws what opening throws. */
export async function openHostChannel(options: HostChannelOptions): Promise<Listener> {
  const { retry, log, onLost } = options;
  let listener: Listener | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  const lost = (error: Error): void => {
    listener = undefined;
    if (closed) return;
    if (!retry) {
      onLost(error);
      return;
    }
    log.warn({ error: describeError(error) }, 'host channel lost, trying again');
    timer = setTimeout(() => {
      void attempt();
    }, RETRY_MS);
  };
  const attempt = async (): Promise<void> => {
    try {
      const opened = await openOnce(options, lost);
      if (closed) await opened.close();
      else listener = opened;
    } catch (error) {
      lost(error instanceof Error ? error : new Error(String(error)));
    }
  };

  if (retry) await attempt();
  else listener = await openOnce(options, lost);
  return {
    async close() {
      closed = true;
      clearTimeout(timer);
      await listener?.close();
    },
  };
}

async function openOnce(
  { method, path, activated, onStream, log }: HostChannelOptions,
  onFailure: (error: Error) => void,
): Promise<Listener> {
  if (activated !== undefined || method === 'unix-listen' || method === 'vsock-listen') {
    const inherited =
      activated === undefined ? {} : { inherited: { fd: activated.fd, isVsock: method === 'vsock-listen' } };
    return await listenOnUnixSocket({ path, ...inherited, clients: 'one', onStream, onFailure: logRefusal(log, path) });
  }
  if (method === 'isa-serial') await makeLineRaw(path);
  const port = openSerialPort({ path, onStream, onFailure });
  log.debug({ path, method: port.method }, 'host channel open');
  return port;
}

interface LocalSocketOptions {
  readonly path: string;
  /** Nobody but root may connect. Otherwise the group fsfreeze-bridge may, too, if there is one. */
  readonly isRoots: boolean;
  readonly onStream: OnStream;
  readonly log: Logger;
}

/** One of our own sockets in the guest, for many clients. The file's mode says who they are: Node has no SO_PEERCRED. */
export async function openLocalSocket({ path, isRoots, onStream, log }: LocalSocketOptions): Promise<Listener> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const gid = isRoots ? undefined : groupId(LOCAL_GROUP);
  return await listenOnUnixSocket({
    path,
    clients: LOCAL_CLIENTS,
    refusal: encodeLine({ error: tooMany }),
    mode: gid === undefined ? 0o600 : 0o660,
    ...defined({ gid }),
    onStream,
    onFailure: logRefusal(log, path),
  });
}

/** The socket that is root's alone, beside the one for all programs in the guest. */
export function rootSocketBeside(localSocket: string): string {
  return join(dirname(localSocket), 'agent-root.sock');
}

function logRefusal(log: Logger, path: string): (error: Error) => void {
  return (error) => {
    log.warn({ path, error: describeError(error) }, 'a client could not be accepted');
  };
}

/** Looked up in /etc/group alone: an agent must not ask the network about groups. */
function groupId(name: string, file = '/etc/group'): number | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
  const fields = text
    .split('\n')
    .map((line) => line.split(':'))
    .find(([group]) => group === name);
  return fields?.[2] === undefined || !/^\d+$/.test(fields[2]) ? undefined : Number(fields[2]);
}
