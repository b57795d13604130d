// Serves one channel of the dispatcher: requests run strictly one after another and replies keep their order, with one
// exception. A sync that arrives while an abandonable operation (a freeze) is pending is answered at once; from then on
// nothing received before it is answered (libvirt would take a late reply for the answer to its next command), and
// later requests no longer wait. What was received is carried out all the same.
import { setImmediate } from 'node:timers/promises';
import type { ByteStream } from '../transport/byte-stream.js';
import { encodeLine } from '../wire/encode.js';
import type { WireMessage } from '../wire/message-parser.js';
import type { JsonValue } from '../wire/value.js';
import { RemoteError, toWireError } from './errors.js';
import type { DispatcherOptions, Operation, ReplyOrder } from './operation.js';
import { readRequest, requestId, type Request } from './request.js';

interface Entry<C> {
  readonly bytes: number;
  readonly id: JsonValue | undefined;
  readonly work: { operation: Operation<C>; request: Request } | { error: RemoteError; command?: string };
  /** Its reply is no longer wanted. */
  silenced: boolean;
  /** Lets the channel go on without waiting for this entry. */
  leave?: () => void;
}

/** Requests that may wait for their turn; beyond, nothing more is read. A sync behind so many is not seen in time. */
const waitingLimits = { messages: 1024, bytes: 8 * 1024 * 1024 } as const;
/** Bytes of replies that the peer has not taken yet; beyond, nothing more is carried out for it. */
const UNSENT_LIMIT_BYTES = 256 * 1024;
/**
 * So long a peer's requests may take all the time in one go. Then everything else of this process has its turn: the
 * freezer's word that the lease has ended, another channel, a timer.
 */
const TURN_MS = 20;

export class Channel<C> {
  readonly #options: DispatcherOptions<C>;
  readonly #context: C;
  readonly #stream: ByteStream;
  readonly #waiting: Entry<C>[] = [];
  #waitingBytes = 0;
  #running: Entry<C> | undefined;
  /** Settles when nothing is running or waiting. */
  #pump: Promise<void> | undefined;
  #unsentBytes = 0;
  #gone = false;
  readonly #onChange: (() => void)[] = [];

  constructor(options: DispatcherOptions<C>, context: C, stream: ByteStream) {
    this.#options = options;
    this.#context = context;
    this.#stream = stream;
  }

  /** Takes a message in; its reply follows in turn. Never throws. */
  accept(message: WireMessage): void {
    const entry = this.#entry(message);
    this.#waiting.push(entry);
    this.#waitingBytes += entry.bytes;
    if (this.#running !== undefined) this.#overtake(this.#running);
    this.#pump ??= this.#run();
  }

  /** For the reader, between two chunks: waits until not too much is waiting for its turn. */
  async waitForRoom(): Promise<void> {
    while (this.#waiting.length > waitingLimits.messages || this.#waitingBytes > waitingLimits.bytes) {
      await this.#change();
    }
  }

  /** Waits until everything accepted was carried out, and its reply given to the stream. */
  async finish(): Promise<void> {
    while (this.#pump !== undefined) await this.#pump;
  }

  #entry(message: WireMessage): Entry<C> {
    const { bytes } = message;
    if (message.kind === 'error' || (message.kind === 'oversize' && message.isObject)) {
      const error = new RemoteError('GenericError', message.desc);
      return { bytes, id: undefined, work: { error }, silenced: false };
    }
    const value = message.kind === 'oversize' ? null : message.value;
    const id = requestId(value);
    try {
      const request = readRequest(value);
      const operation = this.#options.operations.get(request.execute);
      if (operation !== undefined) return { bytes, id, work: { operation, request }, silenced: false };
      const error = new RemoteError('CommandNotFound', `The command ${request.execute} has not been found`);
      return { bytes, id, work: { error, command: request.execute }, silenced: false };
    } catch (error) {
      if (!(error instanceof RemoteError)) throw error;
      return { bytes, id, work: { error }, silenced: false };
    }
  }

  async #run(): Promise<void> {
    let turnBegan = performance.now();
    for (let entry = this.#next(); entry !== undefined; entry = this.#next()) {
      this.#running = entry;
      const left = new Promise<void>((resolve) => {
        entry.leave = resolve;
      });
      const done = this.#answer(entry);
      this.#overtake(entry);
      await Promise.race([done, left]);
      this.#running = undefined;
      while (this.#unsentBytes > UNSENT_LIMIT_BYTES && !this.#gone) await this.#change();
      if (performance.now() - turnBegan > TURN_MS) {
        await setImmediate();
        turnBegan = performance.now();
      }
    }
    // In the same turn in which nothing was found waiting: what is accepted next must start a new one.
    this.#pump = undefined;
  }

  /** Settles at the next change of what is waiting or unsent. Waited for by the reader and by the pump. */
  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#onChange.push(resolve);
    });
  }

  #changed(): void {
    for (const resolve of this.#onChange.splice(0)) resolve();
  }

  #next(): Entry<C> | undefined {
    const entry = this.#waiting.shift();
    if (entry !== undefined) this.#forget(entry);
    return entry;
  }

  #forget(entry: Entry<C>): void {
    this.#waitingBytes -= entry.bytes;
    this.#changed();
  }

  /** Answers the first waiting sync now if what is running can be left to itself. */
  #overtake(running: Entry<C>): void {
    if (running.silenced || orderOf(running) !== 'abandonable') return;
    const index = this.#waiting.findIndex((entry) => orderOf(entry) === 'sync');
    const sync = index < 0 ? undefined : this.#waiting.splice(index, 1)[0];
    if (sync === undefined) return;
    this.#forget(sync);
    running.silenced = true;
    for (const earlier of this.#waiting.slice(0, index)) earlier.silenced = true;
    void this.#answer(sync).then(running.leave);
  }

  /** Carries out one entry and sends its reply. Never throws. */
  async #answer(entry: Entry<C>): Promise<void> {
    const { work } = entry;
    if ('error' in work) {
      this.#sendError(entry, work.error, work.command);
      return;
    }
    const { operation, request } = work;
    try {
      const desc = this.#options.refusal(operation.name, this.#context);
      if (desc !== undefined) throw new RemoteError('CommandNotFound', desc);
      const result = (await operation.call(request.args, this.#context)) ?? {};
      if (!operation.successResponse) return;
      this.#send(entry, encodeLine({ return: result, id: entry.id }, operation.delimited));
    } catch (error) {
      this.#sendError(entry, error, operation.name);
    }
  }

  #sendError(entry: Entry<C>, error: unknown, command: string | undefined): void {
    this.#options.onError?.(error, command, this.#context);
    this.#send(entry, encodeLine({ id: entry.id, error: toWireError(error) }));
  }

  /** Does not wait for the peer to read: what it sends next may be the thaw. */
  #send(entry: Entry<C>, line: Uint8Array): void {
    if (entry.silenced || this.#gone) return;
    this.#unsentBytes += line.length;
    this.#stream.write(line).then(
      () => {
        this.#unsentBytes -= line.length;
        this.#changed();
      },
      () => {
        // The peer is gone or does not read: nobody is left to be told. What it asked for is still carried out.
        this.#gone = true;
        this.#unsentBytes = 0;
        this.#changed();
      },
    );
  }
}

function orderOf(entry: Entry<unknown>): ReplyOrder | undefined {
  return 'operation' in entry.work ? entry.work.operation.order : undefined;
}
