// Speaks to a guest agent by hand, for tests that look at the bytes: requests out, lines of JSON in.
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { defined } from '../../src/defined.js';

export interface AgentClient extends Disposable {
  readonly socket: Socket;
  /** Sends bytes as they are. */
  send(text: string | Uint8Array): void;
  /** The next line, a leading 0xFF kept as `\xff`. Throws after `limitMs`. */
  line(limitMs?: number): Promise<string>;
  /** Sends a command and gives what `return` holds. Throws the error's class and desc. */
  call(execute: string, args?: object, limitMs?: number): Promise<unknown>;
  /** True if nothing comes for `ms`. */
  quiet(ms: number): Promise<boolean>;
}

export async function connectAgent(path: string): Promise<AgentClient> {
  const socket = createConnection(path);
  await once(socket, 'connect');
  socket.setEncoding('latin1');
  socket.on('error', () => undefined);
  let buffer = '';
  let ended = false;
  let wake = (): void => undefined;
  socket.on('data', (text: string) => {
    buffer += text;
    wake();
  });
  socket.on('close', () => {
    ended = true;
    wake();
  });
  const more = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  const client: AgentClient = {
    socket,
    send: (text) => void socket.write(text),
    async line(limitMs = 5000) {
      const until = Date.now() + limitMs;
      for (;;) {
        const end = buffer.indexOf('\n');
        if (end >= 0) {
          const line = buffer.slice(0, end);
          buffer = buffer.slice(end + 1);
          return line;
        }
        if (ended) throw new Error('expected a line, found the connection closed');
        const left = until - Date.now();
        if (left <= 0) throw new Error(`expected a line within ${limitMs} ms, found none`);
        await more(left);
      }
    },
    async call(execute, args, limitMs) {
      client.send(JSON.stringify({ execute, ...defined({ arguments: args }) }));
      const reply = JSON.parse(await client.line(limitMs)) as {
        return?: unknown;
        error?: { class: string; desc: string };
      };
      if (reply.error !== undefined) throw new Error(`${reply.error.class}: ${reply.error.desc}`);
      return reply.return;
    },
    async quiet(ms) {
      if (buffer === '' && !ended) await more(ms);
      return buffer === '';
    },
    [Symbol.dispose]: () => void socket.destroy(),
  };
  return client;
}
