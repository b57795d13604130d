// Stands between whoever asks and a VM's monitor, for as long as the VM lives, at the place where the VM's monitor is said
// to be. Passes everything on; at the n-th line from now, in either direction, it can stop the talk and let something
// be done.
import { connect, createServer, type Server, type Socket } from 'node:net';

export class MonitorTap implements AsyncDisposable {
  /** The monitor itself; another one after a migration. */
  target: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #lines = 0;
  #strike: { readonly line: number; readonly act: () => Promise<void> } | undefined;
  #struck: Promise<void> | undefined;
  #queue: Promise<void> = Promise.resolve();

  private constructor(target: string) {
    this.target = target;
    this.#server = createServer((asker) => {
      const monitor = connect(this.target);
      for (const [own, other] of [
        [asker, monitor],
        [monitor, asker],
      ] as const) {
        this.#sockets.add(own);
        own.on('error', () => undefined);
        own.on('close', () => {
          this.#sockets.delete(own);
          // What was said before it hung up is passed on first.
          void this.#queue.then(() => other.end());
        });
        this.#pass(own, other);
      }
    });
  }

  static async listen(path: string, target: string): Promise<MonitorTap> {
    const tap = new MonitorTap(target);
    await new Promise<void>((resolve, reject) => {
      tap.#server.on('error', reject);
      tap.#server.listen(path, resolve);
    });
    return tap;
  }

  /** At the `line`-th line from now (from 1) nothing passes until `act`, which must not throw, is over. */
  arm(line: number, act: () => Promise<void>): void {
    this.#lines = 0;
    this.#struck = undefined;
    this.#strike = { line, act };
  }

  /** Lines since it was armed; true if they were enough. Settles when the act is over. */
  async disarm(): Promise<{ readonly lines: number; readonly struck: boolean }> {
    this.#strike = undefined;
    await this.#struck;
    return { lines: this.#lines, struck: this.#struck !== undefined };
  }

  #pass(from: Socket, to: Socket): void {
    let pending = '';
    from.setEncoding('utf8');
    from.on('data', (chunk: string) => {
      pending += chunk;
      for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
        const line = pending.slice(0, end + 1);
        pending = pending.slice(end + 1);
        this.#line();
        this.#queue = this.#queue.then(() => void to.write(line));
      }
    });
  }

  #line(): void {
    this.#lines++;
    if (this.#strike === undefined || this.#lines !== this.#strike.line) return;
    const { act } = this.#strike;
    this.#struck = this.#queue.then(act);
    this.#queue = this.#struck;
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
