// Makes a ByteStream of a connected net.Socket: bounded output, an end that is not an error.
import type { Socket } from 'node:net';
import { defined } from '../defined.js';
import { isErrno, UnreachableError } from '../errors.js';
import { QUEUE_LIMIT_BYTES, type ByteStream } from './byte-stream.js';

/** Time a closing connection has to take what was already written, before it is cut. */
const CLOSE_LIMIT_MS = 500;

/** How long bytes may wait for a peer that takes none of them, before the connection is reset. */
const STALL_LIMIT_MS = 30_000;

/** @param name who is at the other end, for error messages. The socket must have been made with `allowHalfOpen`. */
export function socketStream(socket: Socket, name: string, stallMs = STALL_LIMIT_MS): ByteStream {
  const unreachable = (what: string, cause?: unknown): UnreachableError =>
    new UnreachableError('E_CONNECTION', `${name}: ${what}`, defined({ cause }));
  // Without a listener a reset connection would end the process; read and write tell of it.
  let failure: Error | undefined;
  socket.on('error', (error) => {
    failure = error;
  });
  return {
    async *read() {
      try {
        for await (const chunk of socket.iterator({ destroyOnReturn: false })) yield chunk as Buffer;
      } catch (cause) {
        if (!isPeerGone(cause)) throw unreachable('reading failed', cause);
      }
    },
    write(bytes) {
      if (socket.destroyed || socket.writableEnded) {
        return Promise.reject(unreachable('the connection is closed', failure));
      }
      if (socket.writableLength > 0 && socket.writableLength + bytes.length > QUEUE_LIMIT_BYTES) {
        const waiting = socket.writableLength;
        socket.destroy();
        return Promise.reject(unreachable(`does not read: ${waiting} bytes wait, connection reset`));
      }
      return new Promise((resolve, reject) => {
        // A server for one client at a time would wait with the others for ever.
        const timer = setTimeout(() => {
          socket.destroy(new Error(`took no bytes for ${stallMs} ms`));
        }, stallMs);
        socket.write(bytes, (error) => {
          clearTimeout(timer);
          // A socket that was destroyed meanwhile calls back without an error (Node 20).
          if (error || socket.destroyed) reject(unreachable('writing failed', error ?? failure));
          else resolve();
        });
      });
    },
    close() {
      if (socket.destroyed) return Promise.resolve();
      return new Promise((resolve) => {
        const timer = setTimeout(() => socket.destroy(), CLOSE_LIMIT_MS);
        socket.once('close', () => {
          clearTimeout(timer);
          resolve();
        });
        socket.end(() => socket.destroy());
      });
    },
  };
}

function isPeerGone(error: unknown): boolean {
  return isErrno(error, 'ECONNRESET', 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE', 'ERR_STREAM_DESTROYED');
}
