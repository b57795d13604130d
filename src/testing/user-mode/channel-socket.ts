// Serves a serial line of the guest as a unix socket, as QEMU's chardevs are: one client at a time, the next one waits, and
// the guest's words are lost while there is none. Data to the guest is sent in small pieces: a line whose reader does not
// keep up (4096 bytes, n_tty of Linux) is throttled, and a user-mode kernel never listens to it again (line_throttle in
// arch/um/drivers/line.c takes the descriptor out of epoll, and nothing puts it back; 6.1 to 7.2).
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

const PIECE = 1024;
/** A pause after each piece lets the reader in the guest run. */
const PAUSE_MS = 5;

/** Listens at `path` and passes everything on between a client and `line`. */
export async function serveLine(line: Duplex, path: string): Promise<AsyncDisposable> {
  const waiting: Socket[] = [];
  let client: Socket | undefined;

  const serveNext = (): void => {
    client = waiting.shift();
    if (client !== undefined) void pass(client, line);
  };
  line.on('data', (chunk: Buffer) => {
    if (client !== undefined && !client.destroyed && !client.write(chunk)) line.pause();
  });
  line.on('error', () => undefined); // told by its end
  line.on('close', () => {
    server.close(); // others are refused from now on, as by a QEMU that has ended
    for (const socket of [client, ...waiting]) socket?.destroy();
  });

  const server = createServer({ pauseOnConnect: true }, (socket) => {
    socket.on('error', () => undefined); // told by close
    socket.on('drain', () => line.resume());
    socket.on('close', () => {
      if (socket === client) {
        line.resume();
        serveNext();
      } else waiting.splice(waiting.indexOf(socket), 1);
    });
    waiting.push(socket);
    if (client === undefined) serveNext();
  });
  await rm(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return {
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise<void>((resolve) => {
        server.close(() => {
          resolve();
        });
      });
      for (const socket of [client, ...waiting]) socket?.destroy();
      line.destroy();
      await closed;
    },
  };
}

/** Never throws: a client that is gone is told by its close. */
async function pass(client: Socket, line: Duplex): Promise<void> {
  try {
    for await (const chunk of client as AsyncIterable<Buffer>) {
      for (let at = 0; at < chunk.length; at += PIECE) {
        if (line.destroyed) return;
        if (!line.write(chunk.subarray(at, at + PIECE))) await Promise.race([once(line, 'drain'), once(line, 'close')]);
        if (at + PIECE < chunk.length) await sleep(PAUSE_MS);
      }
    }
  } catch {
    // Destroyed while it was read from.
  }
}
