// A unix socket in front of another one, for faults of the connection itself. It cuts the connection, or lets requests
// through and holds back the replies: the peer has acted and the caller does not know.
import { rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { connectUnix } from './connect-unix.js';

export interface SocketProxy extends AsyncDisposable {
  /** Give this path to the program under test. One client at a time, as with a chardev. */
  readonly path: string;
  /** Closes the connections that are open now, on both sides, and says how many there were. */
  cut(): number;
  /** Keeps all that the peer says from now on, and passes none of it on. */
  holdReplies(): void;
  /** Hands over all that was kept and everything after it. */
  releaseReplies(): void;
  /** Sends bytes to the peer as if the client had; false without a connection. */
  inject(bytes: string): boolean;
}

/** Listens at `path` and passes everything on to `target`. */
export async function proxySocket(target: string, path: string): Promise<SocketProxy> {
  const open = new Set<Socket>();
  let holding = false;
  let current: { client: Socket; peer: Socket } | undefined;

  const keep = (socket: Socket) => {
    open.add(socket);
    socket.on('error', () => undefined); // told by close
    socket.on('close', () => open.delete(socket));
  };
  const server = createServer({ pauseOnConnect: true }, (client) => {
    keep(client);
    connectUnix(target, 10_000).then(
      (peer) => {
        keep(peer);
        current = { client, peer };
        client.on('close', () => peer.destroy());
        peer.on('close', () => client.destroy());
        client.pipe(peer);
        client.resume();
        if (!holding) peer.pipe(client);
      },
      () => client.destroy(),
    );
  });
  await rm(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  const cut = () => {
    const count = [...open].filter((socket) => !socket.destroyed).length / 2;
    for (const socket of open) socket.destroy();
    return count;
  };
  return {
    path,
    cut,
    holdReplies: () => {
      holding = true;
      current?.peer.unpipe(current.client);
      current?.peer.pause();
    },
    releaseReplies: () => {
      holding = false;
      if (current !== undefined) current.peer.pipe(current.client);
    },
    inject: (bytes) => {
      if (current === undefined || current.peer.destroyed) return false;
      current.peer.write(bytes);
      return true;
    },
    [Symbol.asyncDispose]: async () => {
      cut();
      await new Promise<void>((resolve) => {
        server.close(() => {
          resolve();
        });
      });
    },
  };
}
