// Between a tool and a monitor: what either says arrives late, each time by another while. Two tools at once meet in another
// order in every round.
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export class SlowProxy implements AsyncDisposable {
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string, target: string, longestMs: number) {
    this.path = path;
    this.#server = createServer((tool) => {
      const qemu = connect(target);
      for (const [from, to] of [
        [tool, qemu],
        [qemu, tool],
      ] as const) {
        this.#sockets.add(from);
        from.on('error', () => undefined);
        from.on('close', () => to.destroy());
        let last = Promise.resolve();
        from.on('data', (chunk) => {
          last = last.then(async () => {
            await sleep(Math.random() * longestMs);
            to.write(chunk);
          });
        });
      }
    });
  }

  static async listen(path: string, target: string, longestMs: number): Promise<SlowProxy> {
    const proxy = new SlowProxy(path, target, longestMs);
    await new Promise<void>((resolve) => {
      proxy.#server.listen(path, resolve);
    });
    return proxy;
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
