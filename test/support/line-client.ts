// A client of lines on a unix socket, for tests that speak a protocol by hand: what was sent and what came, no more.
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

export interface LineClient extends Disposable {
  readonly socket: Socket;
  readonly send: (line: string) => void;
  /** The next line. Throws after `limitMs`, or if the connection has ended. */
  readonly line: (limitMs?: number) => Promise<string>;
  /** Lines up to and with the first one that begins with `ok`, `error`, or `until`. */
  readonly answer: (until?: string, limitMs?: number) => Promise<string[]>;
  /** Sends a request and gives its answer's lines. */
  readonly ask: (line: string, limitMs?: number) => Promise<string[]>;
  /** Resolves when the other end has closed. */
  readonly closed: Promise<void>;
}

export const connectLines = async (path: string): Promise<LineClient> => {
  const socket = createConnection(path);
  await once(socket, 'connect');
  const queue: string[] = [];
  let wake = (): void => undefined;
  let ended = false;
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      ended = true;
      wake();
      resolve();
    });
  });
  socket.on('error', () => undefined); // a reset is an end: `closed` and line() tell
  const lines = createInterface({ input: socket });
  lines.on('error', () => undefined); // readline passes the socket's errors on
  lines.on('line', (line) => {
    queue.push(line);
    wake();
  });
  const line = async (limitMs = 5000): Promise<string> => {
    const until = Date.now() + limitMs;
    for (;;) {
      const next = queue.shift();
      if (next !== undefined) return next;
      if (ended) throw new Error('expected a line, found the connection closed');
      const left = until - Date.now();
      if (left <= 0) throw new Error(`expected a line within ${limitMs} ms, found none`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  };
  const answer = async (until?: string, limitMs?: number): Promise<string[]> => {
    const lines: string[] = [];
    for (;;) {
      const next = await line(limitMs);
      lines.push(next);
      const first = next.split(' ', 1)[0] ?? '';
      if (until === undefined ? first === 'ok' || first === 'error' : next.startsWith(until)) return lines;
    }
  };
  const send = (text: string): void => void socket.write(`${text}\n`);
  return {
    socket,
    send,
    line,
    answer,
    ask: async (text, limitMs) => {
      send(text);
      return await answer(undefined, limitMs);
    },
    closed,
    [Symbol.dispose]: () => void socket.destroy(),
  };
};
