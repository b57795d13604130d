// Connects to a unix socket that may not be there yet.
import { connect, type Socket } from 'node:net';
import { Deadline } from '../deadline.js';
import { UnreachableError } from '../errors.js';

/**
 * Connects to a unix socket, again until `timeoutMs` have passed: its owner may not have made it yet. Throws
 * UnreachableError `E_SOCKET` then.
 */
export async function connectUnix(socketPath: string, timeoutMs: number): Promise<Socket> {
  const deadline = new Deadline(timeoutMs);
  for (;;) {
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const socket = connect(socketPath);
        socket.once('error', reject);
        socket.once('connect', () => {
          socket.off('error', reject);
          resolve(socket);
        });
      });
    } catch (cause) {
      if (deadline.passed) {
        throw new UnreachableError('E_SOCKET', `no answer at ${socketPath} within ${timeoutMs} ms`, { cause });
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}
