// The fixture's own QMP connection: newline JSON over a unix socket, one command at a time, events to whoever waits.
// A shim: the full client is src/qmp/client.ts (graph, jobs, transactions); this one must not depend on code under test.
import type { Socket } from 'node:net';
import * as v from 'valibot';
import { withLimit } from '../../deadline.js';
import { BridgeError, UnreachableError } from '../../errors.js';
import { connectUnix } from '../connect-unix.js';

const Message = v.looseObject({
  QMP: v.optional(v.unknown()),
  return: v.optional(v.unknown()),
  error: v.optional(v.object({ class: v.string(), desc: v.string() })),
  event: v.optional(v.string()),
  data: v.optional(v.record(v.string(), v.unknown())),
  id: v.optional(v.number()),
});

export interface MonitorEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
  command: string;
}

export class Monitor implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #waiters = new Set<(event: MonitorEvent) => void>();
  #nextId = 1;
  #greeted: (() => void) | undefined;
  #closed: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    let rest = '';
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      const lines = `${rest}${text}`.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#receive(line);
    });
    socket.on('error', () => undefined); // told by close
    socket.on('close', () => {
      this.#closed = new UnreachableError('E_MONITOR_CLOSED', 'QEMU closed the monitor connection');
      for (const pending of this.#pending.values()) pending.reject(this.#closed);
      this.#pending.clear();
    });
  }

  /** Connects and negotiates. Throws UnreachableError when nothing answers within `timeoutMs`. */
  static async connect(socketPath: string, timeoutMs: number): Promise<Monitor> {
    const socket = await connectUnix(socketPath, timeoutMs);
    const monitor = new Monitor(socket);
    const greeted = new Promise<void>((resolve) => {
      monitor.#greeted = resolve;
    });
    try {
      await withLimit(`greeting of ${socketPath}`, timeoutMs, greeted);
      await monitor.execute('qmp_capabilities', {}, timeoutMs);
    } catch (cause) {
      socket.destroy();
      throw cause;
    }
    return monitor;
  }

  /** Runs one command. Throws BridgeError `E_MONITOR_REFUSED` with QEMU's own words. */
  async execute(command: string, args: Readonly<Record<string, unknown>> = {}, timeoutMs = 10_000): Promise<unknown> {
    if (this.#closed !== undefined) throw this.#closed;
    const id = this.#nextId++;
    const reply = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, command });
    });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return await withLimit(`QMP ${command}`, timeoutMs, reply, 'unknown');
    } finally {
      this.#pending.delete(id);
    }
  }

  /** Waits for an event of this name that `matches`. Call it before the command that causes the event. */
  async event(
    name: string,
    timeoutMs: number,
    matches: (data: MonitorEvent['data']) => boolean = () => true,
  ): Promise<MonitorEvent> {
    let waiter: ((event: MonitorEvent) => void) | undefined;
    const seen = new Promise<MonitorEvent>((resolve) => {
      waiter = (event) => {
        if (event.event === name && matches(event.data)) resolve(event);
      };
      this.#waiters.add(waiter);
    });
    try {
      return await withLimit(`QMP event ${name}`, timeoutMs, seen);
    } finally {
      if (waiter !== undefined) this.#waiters.delete(waiter);
    }
  }

  /** Closes the connection; QEMU goes on. */
  close(): void {
    this.#socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await Promise.resolve();
  }

  #receive(line: string): void {
    const message = v.parse(Message, JSON.parse(line));
    if (message.QMP !== undefined) this.#greeted?.();
    else if (message.event !== undefined) {
      for (const waiter of this.#waiters) waiter({ event: message.event, data: message.data ?? {} });
    } else if (message.id !== undefined) {
      const pending = this.#pending.get(message.id);
      if (message.error === undefined) pending?.resolve(message.return);
      else {
        pending?.reject(
          new BridgeError('E_MONITOR_REFUSED', `QMP ${pending.command}: ${message.error.desc}`, {
            facts: message.error,
          }),
        );
      }
    }
  }
}
