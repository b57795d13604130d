// Between the tool and a real monitor. LossyProxy passes everything on, but loses one command's request or answer, or
// hangs up. StepProxy stops the conversation at one step, so that something can be done to either side exactly there.
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

/** The n-th time (from 1) the tool sends the command: before QEMU gets it, or when QEMU has answered it. */
export interface Step {
  readonly command: string;
  readonly nth?: number;
  readonly when: 'before' | 'after';
}

export class StepProxy implements AsyncDisposable {
  readonly path: string;
  /** Settles when the step is reached; nothing passes from then on, until `goOn`. */
  readonly reached: Promise<void>;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #held: (() => void)[] | undefined;
  #done = false;

  private constructor(path: string, target: string, { command, nth = 1, when }: Step) {
    this.path = path;
    let reach: () => void = () => undefined;
    this.reached = new Promise((resolve) => {
      reach = resolve;
    });
    let seen = 0;
    let awaited: unknown;
    const hold = (): void => {
      if (this.#done) return;
      this.#done = true;
      this.#held = [];
      reach();
    };
    this.#server = createServer((tool) => {
      const qemu = connect(target);
      for (const [own, other] of [
        [tool, qemu],
        [qemu, tool],
      ] as const) {
        this.#sockets.add(own);
        own.on('error', () => undefined);
        own.on('close', () => other.destroy());
      }
      const pass = (to: Socket, line: string): void => {
        const send = (): void => void to.write(`${line}\n`);
        if (this.#held === undefined) send();
        else this.#held.push(send);
      };
      onLines(tool, (line) => {
        const request = JSON.parse(line) as { execute: string; id: unknown };
        if (request.execute === command && ++seen === nth) {
          awaited = request.id;
          if (when === 'before') hold();
        }
        pass(qemu, line);
      });
      onLines(qemu, (line) => {
        const { id } = JSON.parse(line) as { id?: unknown };
        if (when === 'after' && awaited !== undefined && id === awaited) hold();
        pass(tool, line);
      });
    });
  }

  static async listen(path: string, target: string, step: Step): Promise<StepProxy> {
    const proxy = new StepProxy(path, target, step);
    await new Promise<void>((resolve) => {
      proxy.#server.listen(path, resolve);
    });
    return proxy;
  }

  /** Lets pass what was held back, and all that follows. */
  goOn(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const send of held) send();
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

function onLines(from: Socket, take: (line: string) => void): void {
  let pending = '';
  from.on('data', (chunk) => {
    pending += chunk.toString('utf8');
    for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
      take(pending.slice(0, end));
      pending = pending.slice(end + 1);
    }
  });
}
