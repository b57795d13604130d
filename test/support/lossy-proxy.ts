// Between the tool and a real monitor: passes everything on, but loses one command's request or answer, or hangs up.
import { connect, createServer, type Server, type Socket } from 'node:net';

/**
 * request  the command never reaches QEMU, and is never answered
 * answer   QEMU carries it out, its answer is lost
 * hang-up  QEMU carries it out, the connection ends instead of the answer
 */
export type Loss = 'request' | 'answer' | 'hang-up';

export class LossyProxy implements AsyncDisposable {
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string, target: string, command: string, loss: Loss) {
    this.path = path;
    this.#server = createServer((tool) => {
      const qemu = connect(target);
      let lost: unknown;
      this.#track(tool, qemu);
      this.#lines(tool, (line) => {
        const request = JSON.parse(line) as { execute: string; id: unknown };
        if (request.execute === command) {
          lost = request.id;
          if (loss === 'request') return;
        }
        qemu.write(`${line}\n`);
      });
      this.#lines(qemu, (line) => {
        const reply = JSON.parse(line) as { id?: unknown };
        if (lost !== undefined && reply.id === lost) {
          if (loss === 'hang-up') tool.destroy();
          return;
        }
        tool.write(`${line}\n`);
      });
    });
  }

  static async listen(path: string, target: string, command: string, loss: Loss): Promise<LossyProxy> {
    const proxy = new LossyProxy(path, target, command, loss);
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

  #track(tool: Socket, qemu: Socket): void {
    for (const [own, other] of [
      [tool, qemu],
      [qemu, tool],
    ] as const) {
      this.#sockets.add(own);
      own.on('error', () => undefined);
      own.on('close', () => other.destroy());
    }
  }

  #lines(from: Socket, take: (line: string) => void): void {
    let pending = '';
    from.on('data', (chunk) => {
      pending += chunk.toString('utf8');
      for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
        take(pending.slice(0, end));
        pending = pending.slice(end + 1);
      }
    });
  }
}
