// Unix stream sockets: a client that gives up in time, and servers. A server for one client at a time makes the next
// one wait its turn, as qemu-ga's backlog does; a server for many has a bound.
import { chmodSync, chownSync, existsSync, lstatSync, unlinkSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { pathError, UnreachableError, UsageError } from '../errors.js';
import type { ByteStream, Listener, OnStream } from './byte-stream.js';
import { streamHandle } from './stream-handle.js';
import { socketStream } from './socket-stream.js';

/** sun_path holds 108 bytes with its closing NUL; Node cuts a longer path silently. */
const PATH_LIMIT_BYTES = 107;

/** Throws an UnreachableError if nobody has answered the connect within `limitMs`, a UsageError for a bad path. */
export function connectUnixSocket(path: string, limitMs: number): Promise<ByteStream> {
  checkPath(path);
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path, allowHalfOpen: true });
    const fail = (what: string, errno?: string): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(new UnreachableError('E_CONNECT', `cannot connect to ${path}: ${what}`, { facts: { path, errno } }));
    };
    const timer = setTimeout(() => {
      fail(`no answer within ${limitMs} ms`);
    }, limitMs);
    socket.once('error', (error: NodeJS.ErrnoException) => {
      fail(error.code ?? error.message, error.code);
    });
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      resolve(socketStream(socket, path));
    });
  });
}

interface InheritedSocket {
  readonly fd: number;
  /** Node knows a descriptor by its family, and knows no vsocks (stream-handle.ts). */
  readonly isVsock: boolean;
}

export interface ListenOptions {
  readonly path: string;
  /** A socket that listens already: then `path` is a name for it. Closing it leaves the file to whoever made it. */
  readonly inherited?: InheritedSocket;
  /** `one`: one client at a time, others wait. A number: that many at a time, more are turned away. */
  readonly clients: 'one' | number;
  /** Sent to a client that is turned away. */
  readonly refusal?: Uint8Array;
  /** Permissions of the socket; without it, by umask. */
  readonly mode?: number;
  /** How long a client may take none of the bytes that wait for it, before it is reset. */
  readonly stallMs?: number;
  /** Group that owns the socket. */
  readonly gid?: number;
  readonly onStream: OnStream;
  /** Told when a client could not be accepted (no file descriptors left, say); the server goes on. */
  readonly onFailure?: (error: Error) => void;
}

/** Clients of a `one` server that may wait; a kernel backlog is no longer either. */
const WAITING_LIMIT = 64;
const TURN_AWAY_LIMIT_MS = 500;

/**
 * Binds and listens. A socket file left by a dead server is replaced; one that somebody answers on, a file that is no
 * socket, and a path or rights that forbid it are a UsageError; what may be over the next time is another BridgeError.
 */
export async function listenOnUnixSocket(options: ListenOptions): Promise<Listener> {
  const { path, clients, onStream } = options;
  if (options.inherited === undefined) {
    checkPath(path);
    // libuv would say EACCES.
    if (!existsSync(dirname(path)))
      throw new UsageError('E_LISTEN', `cannot listen on ${path}: its folder does not exist`);
    await removeStaleSocket(path);
  }
  const open = new Set<Socket>();
  const reading = new Set<Socket>();
  const waiting: Socket[] = [];
  const atOnce = clients === 'one' ? 1 : clients;

  const serveNext = (): void => {
    while (reading.size < atOnce) {
      const socket = waiting.shift();
      if (socket === undefined) return;
      serve(socket);
    }
  };
  const serve = (socket: Socket): void => {
    open.add(socket);
    reading.add(socket);
    // A client that has ended its side makes room at once: what it asked for may still be under way, and the next one
    // may have come to put an end to it.
    const makeRoom = (): void => {
      if (reading.delete(socket)) serveNext();
    };
    socket.once('end', makeRoom);
    socket.once('close', () => {
      open.delete(socket);
      makeRoom();
    });
    onStream(socketStream(socket, `client of ${path}`, options.stallMs));
  };

  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    if (reading.size < atOnce) {
      serve(socket);
    } else if (clients === 'one' && waiting.length < WAITING_LIMIT) {
      waiting.push(socket);
    } else {
      turnAway(socket, options.refusal);
    }
  });
  await bind(server, options);
  server.on('error', (error) => options.onFailure?.(error));
  return {
    close: () =>
      new Promise((resolve) => {
        for (const socket of waiting.splice(0)) socket.destroy();
        server.close(() => {
          resolve();
        });
        // The sockets have had their close(), which flushes; whoever is still here is not waited for.
        for (const socket of open) socket.destroy();
      }),
  };
}

function turnAway(socket: Socket, refusal: Uint8Array | undefined): void {
  if (refusal === undefined) {
    socket.destroy();
    return;
  }
  // A client that does not take even this is not waited for.
  const timer = setTimeout(() => socket.destroy(), TURN_AWAY_LIMIT_MS);
  socket.on('error', () => undefined);
  socket.once('close', () => {
    clearTimeout(timer);
  });
  socket.end(refusal, () => socket.destroy());
}

function bind(server: Server, { path, inherited, mode, gid }: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (cause: NodeJS.ErrnoException): void => {
      reject(pathError('E_LISTEN', `cannot listen on ${path}`, cause));
    };
    server.once('error', refuse);
    // Nobody may connect between bind and chmod.
    const umask = mode === undefined ? undefined : process.umask(0o177);
    listen(server, inherited, path, () => {
      server.removeListener('error', refuse);
      try {
        if (gid !== undefined) chownSync(path, -1, gid);
        if (mode !== undefined) chmodSync(path, mode);
        resolve();
      } catch (error) {
        server.close();
        refuse(error as NodeJS.ErrnoException);
      }
    });
    if (umask !== undefined) process.umask(umask);
  });
}

function listen(server: Server, inherited: InheritedSocket | undefined, path: string, done: () => void): void {
  if (inherited === undefined) server.listen(path, done);
  else if (inherited.isVsock) server.listen(streamHandle(inherited.fd), done);
  else server.listen({ fd: inherited.fd }, done);
}

async function removeStaleSocket(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new UsageError('E_LISTEN', `cannot listen on ${path}: it exists and is not a socket`);
  let stream: ByteStream;
  try {
    stream = await connectUnixSocket(path, 1000);
  } catch (error) {
    // Refused: its server is dead. Anything else (a full backlog, say) is no licence to take the name away.
    if (!(error instanceof UnreachableError) || error.facts['errno'] !== 'ECONNREFUSED') throw error;
    unlinkSync(path);
    return;
  }
  await stream.close();
  throw new UsageError('E_LISTEN', `cannot listen on ${path}: another program answers there`);
}

function checkPath(path: string): void {
  const length = Buffer.byteLength(path);
  if (length === 0 || length > PATH_LIMIT_BYTES) {
    throw new UsageError(
      'E_SOCKET_PATH',
      `socket path must be 1 to ${PATH_LIMIT_BYTES} bytes, found ${length}: '${path}'`,
    );
  }
}
