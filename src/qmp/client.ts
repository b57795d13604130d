// A QEMU monitor (QMP): greeting, capabilities, commands correlated by id, events, time limits. Knows no command by
// name but `qmp_capabilities`; the ones this project uses are declared in commands.ts. Specification: QEMU
// docs/interop/qmp-spec. Exported by index.ts.
import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import * as v from 'valibot';
import { DeadlineError, UnreachableError } from '../errors.js';
import { QmpError } from './errors.js';
import { QmpEventListener, type QmpEvent, type QmpEventFilter } from './events.js';
import { MessageSplitter } from './message-splitter.js';
import { refusedConnection } from './refused-connection.js';

const greetingSchema = v.object({
  QMP: v.object({
    version: v.object({
      qemu: v.object({ major: v.number(), minor: v.number(), micro: v.number() }),
      package: v.string(),
    }),
    capabilities: v.array(v.unknown()),
  }),
});
const eventSchema = v.object({
  event: v.string(),
  data: v.optional(v.record(v.string(), v.unknown()), {}),
  timestamp: v.object({ seconds: v.number(), microseconds: v.number() }),
});
const errorSchema = v.object({ class: v.string(), desc: v.string() });

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  /** The distribution's own version; may be empty. */
  readonly package: string;
}

export interface QmpLogEntry {
  readonly direction: 'sent' | 'answered';
  readonly command: string;
  readonly id: number;
  /** CLOCK_MONOTONIC of this machine, in nanoseconds. */
  readonly monotonicNs: bigint;
  /** False if the answer was an error. */
  readonly ok?: boolean;
}

export interface QmpConnectOptions {
  /** Limit for connection, greeting and capabilities together. Default 5000. */
  readonly timeoutMs?: number;
  /** Called for every command as it is sent and as it is answered. Must not throw. */
  readonly log?: (entry: QmpLogEntry) => void;
  /** The longest message accepted from QEMU. Default 8 MiB. */
  readonly maxMessageBytes?: number;
}

export interface QmpExecuteOptions {
  /** Default 10000. */
  readonly timeoutMs?: number;
}

/** sun_path holds 108 bytes with its closing NUL. */
const PATH_LIMIT_BYTES = 107;

interface Pending {
  readonly command: string;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class QmpClient implements AsyncDisposable {
  readonly path: string;
  readonly #socket: Duplex;
  readonly #splitter: MessageSplitter;
  readonly #log: (entry: QmpLogEntry) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<QmpEventListener>();
  #greeting: ((greeting: unknown) => void) | undefined;
  #version: QmpVersion | undefined;
  #ended: UnreachableError | undefined;
  #lastId = 0;

  private constructor(path: string, socket: Duplex, options: QmpConnectOptions) {
    this.path = path;
    this.#socket = socket;
    this.#splitter = new MessageSplitter(options.maxMessageBytes ?? 8 * 1024 * 1024);
    this.#log = options.log ?? (() => undefined);
  }

  /**
   * Connects to a monitor socket and negotiates. Throws an UnreachableError that says which: no such socket or nobody
   * listens (`E_MONITOR`); a backlog that is full, no permission or whatever else keeps the kernel from connecting
   * (`E_MONITOR_UNKNOWN`: a QEMU may well be there); something that is not QMP; or a monitor that another program uses
   * (QEMU serves one at a time and lets a second one wait in the backlog without a word). Instead of a path it takes a
   * connected stream, which is destroyed in the end.
   */
  static async connect(where: string | Duplex, options: QmpConnectOptions = {}): Promise<QmpClient> {
    const path = typeof where === 'string' ? where : 'on a stream';
    const timeoutMs = options.timeoutMs ?? 5000;
    const length = Buffer.byteLength(path);
    // Node cuts a longer path silently and would talk to another socket.
    if (length === 0 || length > PATH_LIMIT_BYTES) {
      const expected = `expected 1 to ${PATH_LIMIT_BYTES} bytes, found ${length}`;
      throw new UnreachableError('E_MONITOR_UNKNOWN', `monitor '${path}': no possible socket path, ${expected}`);
    }
    const client = new QmpClient(path, typeof where === 'string' ? connect({ path }) : where, options);
    try {
      await client.#negotiate(timeoutMs, typeof where !== 'string');
      return client;
    } catch (error) {
      client.#end(error instanceof UnreachableError ? error : new UnreachableError('E_MONITOR_UNKNOWN', String(error)));
      throw error;
    }
  }

  get version(): QmpVersion {
    if (this.#version === undefined) throw new Error('no greeting yet');
    return this.#version;
  }

  /** True until the connection ended, by either side. */
  get connected(): boolean {
    return this.#ended === undefined;
  }

  /**
   * Runs a command and gives what it returned. Throws a QmpError if QEMU refuses it, a DeadlineError (outcome
   * 'unknown': it may still be carried out) or an UnreachableError (likewise) if the connection ends.
   */
  async execute(command: string, args?: object, { timeoutMs = 10_000 }: QmpExecuteOptions = {}): Promise<unknown> {
    if (this.#ended !== undefined) throw this.#ended;
    const id = ++this.#lastId;
    const text = JSON.stringify(
      args === undefined ? { execute: command, id } : { execute: command, arguments: args, id },
    );
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new DeadlineError(`monitor ${this.path}, ${command}`, timeoutMs, { outcome: 'unknown' }));
      }, timeoutMs);
      this.#pending.set(id, {
        command,
        resolve(value) {
          clearTimeout(timer);
          resolve(value);
        },
        reject(error) {
          clearTimeout(timer);
          reject(error);
        },
      });
      this.#log({ direction: 'sent', command, id, monotonicNs: process.hrtime.bigint() });
      this.#socket.write(`${text}\n`);
    });
  }

  /** Listens from now on, until disposed: `using listener = client.listen('JOB_STATUS_CHANGE')`. */
  listen(event: string, filter: QmpEventFilter = () => true): QmpEventListener {
    const listener = new QmpEventListener(event, filter, (own) => this.#listeners.delete(own));
    if (this.#ended === undefined) this.#listeners.add(listener);
    else listener.end(this.#ended);
    return listener;
  }

  /** Ends the connection. What is under way fails with outcome 'unknown'. May be called again. */
  close(): void {
    this.#end(new UnreachableError('E_MONITOR_CLOSED', `connection to monitor ${this.path} was closed`, unknown));
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  async #negotiate(timeoutMs: number, isConnected: boolean): Promise<void> {
    const started = performance.now();
    const greeting = await this.#waitForGreeting(timeoutMs, isConnected);
    const parsed = v.safeParse(greetingSchema, greeting);
    if (!parsed.success) throw this.#foreign(`its first message is ${JSON.stringify(greeting).slice(0, 80)}`);
    const { qemu, package: distribution } = parsed.output.QMP.version;
    this.#version = { ...qemu, package: distribution };
    const leftMs = Math.max(1, timeoutMs - (performance.now() - started));
    await this.execute('qmp_capabilities', undefined, { timeoutMs: leftMs });
  }

  #waitForGreeting(timeoutMs: number, isConnected: boolean): Promise<unknown> {
    return new Promise((resolve, reject) => {
      let accepted = isConnected;
      const timer = setTimeout(() => {
        reject(
          accepted
            ? new UnreachableError(
                'E_MONITOR_SILENT',
                `monitor ${this.path} accepts the connection but sends no greeting within ${timeoutMs} ms: ` +
                  'it is in use by another program, or is no QMP monitor',
              )
            : new UnreachableError('E_MONITOR_UNKNOWN', `monitor ${this.path} does not accept a connection`),
        );
      }, timeoutMs);
      this.#greeting = (greeting) => {
        clearTimeout(timer);
        this.#greeting = undefined;
        resolve(greeting);
      };
      this.#socket.on('connect', () => {
        accepted = true;
      });
      this.#socket.on('data', (chunk: Buffer) => {
        this.#receive(chunk);
      });
      this.#socket.on('error', (cause) => {
        clearTimeout(timer);
        const error = this.#version === undefined ? refusedConnection(this.path, cause) : this.#lost(cause);
        reject(error);
        this.#end(error);
      });
      this.#socket.on('close', () => {
        clearTimeout(timer);
        const error = this.#ended ?? (this.#version === undefined ? this.#foreign('it hangs up') : this.#lost());
        reject(error);
        this.#end(error);
      });
    });
  }

  #receive(chunk: Buffer): void {
    if (this.#ended !== undefined) return;
    try {
      for (const text of this.#splitter.append(chunk)) this.#dispatch(JSON.parse(text), text.length);
    } catch (cause) {
      const what = cause instanceof Error ? cause.message : String(cause);
      const error = this.#foreign(what);
      this.#socket.destroy();
      this.#end(error);
    }
  }

  // Looks at a message only as far as it takes to know whom it is for. One that fits nowhere ends the connection: a guess
  // would be worse.
  #dispatch(message: unknown, bytes: number): void {
    if (this.#greeting !== undefined) {
      this.#greeting(message);
      return;
    }
    if (typeof message !== 'object' || message === null) throw new Error('expected a JSON object');
    if ('event' in message) {
      const event: QmpEvent = v.parse(eventSchema, message);
      for (const listener of this.#listeners) listener.offer(event, bytes);
      return;
    }
    const id = 'id' in message ? message.id : undefined;
    if (typeof id !== 'number') throw new Error(`answer without an id: ${JSON.stringify(message).slice(0, 200)}`);
    const pending = this.#pending.get(id);
    // A reply later than its time limit: its sender was told 'unknown' already.
    if (pending === undefined) return;
    this.#pending.delete(id);
    const { command } = pending;
    const ok = 'return' in message;
    this.#log({ direction: 'answered', command, id, monotonicNs: process.hrtime.bigint(), ok });
    if (ok) {
      pending.resolve(message.return);
      return;
    }
    const error = v.safeParse(errorSchema, 'error' in message ? message.error : undefined);
    if (error.success) {
      pending.reject(new QmpError(command, error.output.class, error.output.desc));
      return;
    }
    const foreign = this.#foreign(`answer to ${command} holds neither return nor error`);
    pending.reject(foreign);
    throw foreign;
  }

  #end(error: UnreachableError): void {
    this.#ended ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#ended);
    this.#pending.clear();
    for (const listener of this.#listeners) listener.end(this.#ended);
    this.#listeners.clear();
    this.#socket.destroy();
  }

  #foreign(what: string): UnreachableError {
    return new UnreachableError('E_MONITOR_PROTOCOL', `${this.path} does not speak QMP: ${what}`, unknown);
  }

  #lost(cause?: Error): UnreachableError {
    const message = `connection to monitor ${this.path} was lost`;
    return new UnreachableError('E_MONITOR_LOST', message, cause === undefined ? unknown : { ...unknown, cause });
  }
}

const unknown = { outcome: 'unknown' } as const;
