// A scripted QMP monitor on a unix socket, for what a real QEMU does not do on demand: lost replies, hostile ones,
// events at a chosen moment, no greeting. A handler gives the `return`, throws a Refusal, or gives `silence`.
import { createServer, type Server, type Socket } from 'node:net';

export const silence = Symbol('no reply');

/** Answered as an error. */
export class Refusal extends Error {
  readonly errorClass: string;
  constructor(desc: string, errorClass = 'GenericError') {
    super(desc);
    this.errorClass = errorClass;
  }
}

export interface Received {
  readonly execute: string;
  readonly arguments?: Record<string, unknown>;
  readonly id: unknown;
}
export type Handler = (request: Received, monitor: FakeMonitor) => unknown;

const greeting = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: 'fake' }, capabilities: ['oob'] },
};

export interface FakeMonitorOptions {
  /** Sent as it is on connection; null: nothing, as a monitor that another client uses. */
  readonly greeting?: string | null;
  readonly handlers?: Readonly<Record<string, Handler>>;
  /** Between two messages, QEMU's own by default. */
  readonly pretty?: boolean;
}

export class FakeMonitor implements AsyncDisposable {
  /** In order of arrival, all connections. */
  readonly received: Received[] = [];
  readonly handlers: Record<string, Handler>;
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #pretty: boolean;

  private constructor(path: string, options: FakeMonitorOptions) {
    this.path = path;
    this.#pretty = options.pretty ?? false;
    this.handlers = { qmp_capabilities: () => ({}), ...options.handlers };
    const first = options.greeting === undefined ? this.#encode(greeting) : options.greeting;
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => this.#sockets.delete(socket));
      let pending = '';
      socket.on('data', (chunk) => {
        pending += chunk.toString('utf8');
        for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
          void this.#answer(socket, JSON.parse(pending.slice(0, end)) as Received);
          pending = pending.slice(end + 1);
        }
      });
      if (first !== null) socket.write(first);
    });
  }

  static async listen(path: string, options: FakeMonitorOptions = {}): Promise<FakeMonitor> {
    const monitor = new FakeMonitor(path, options);
    await new Promise<void>((resolve, reject) => {
      monitor.#server.once('error', reject);
      monitor.#server.listen(path, resolve);
    });
    return monitor;
  }

  get commands(): string[] {
    return this.received.map(({ execute }) => execute);
  }

  event(event: string, data: object = {}): void {
    this.raw(this.#encode({ event, data, timestamp: { seconds: 1, microseconds: 2 } }));
  }

  /** Sends these bytes to every client. */
  raw(bytes: string | Buffer): void {
    for (const socket of this.#sockets) socket.write(bytes);
  }

  /** Ends all connections, as a QEMU that died. */
  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hangUp();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }

  async #answer(socket: Socket, request: Received): Promise<void> {
    this.received.push(request);
    const { execute, id } = request;
    const handler = this.handlers[execute];
    let reply: object;
    try {
      if (handler === undefined) throw new Refusal(`The command ${execute} has not been found`, 'CommandNotFound');
      const result = await handler(request, this);
      if (result === silence) return;
      reply = { return: result, id };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      reply = { error: { class: error.errorClass, desc: error.message }, id };
    }
    socket.write(this.#encode(reply));
  }

  #encode(message: object): string {
    return `${JSON.stringify(message, undefined, this.#pretty ? 4 : undefined)}\r\n`;
  }
}
