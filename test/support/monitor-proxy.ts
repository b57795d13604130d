// Between the tool and a real monitor: each connection of the tool has one to the monitor, and ends with it. A class
// that extends it says what passes between the two.
import { connect, createServer, type Server, type Socket } from 'node:net';

export abstract class MonitorProxy implements AsyncDisposable {
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  protected constructor(path: string, target: string) {
    this.path = path;
    this.#server = createServer((tool) => {
      const monitor = connect(target);
      for (const [own, other] of [
        [tool, monitor],
        [monitor, tool],
      ] as const) {
        this.#sockets.add(own);
        own.on('error', () => undefined);
        own.on('close', () => other.destroy());
      }
      this.pass(tool, monitor);
    });
  }

  /** Called for each connection. */
  protected abstract pass(tool: Socket, monitor: Socket): void;

  protected async listen(): Promise<this> {
    await new Promise<void>((resolve) => {
      this.#server.listen(this.path, resolve);
    });
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }
}

export function onLines(from: Socket, take: (line: string) => void): void {
  let pending = '';
  from.on('data', (chunk) => {
    pending += chunk.toString('utf8');
    for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
      take(pending.slice(0, end));
      pending = pending.slice(end + 1);
    }
  });
}
