// The client side: sends one request at a time over a byte stream, each with a time limit, and finds its reply by the
// id. A reply that did not come in time leaves the outcome unknown and the stream out of step. The next call first
// finds its place again with 0xFF and a sync. The peer may be hostile: as much as it may send is bounded, and what
// nobody waits for is dropped.
import { randomBytes } from 'node:crypto';
import { Deadline, withLimit } from '../deadline.js';
import { BridgeError, DeadlineError, UnreachableError, type Outcome } from '../errors.js';
import type { ByteStream } from '../transport/byte-stream.js';
import { encode } from '../wire/encode.js';
import { MessageParser, type WireLimits, type WireMessage } from '../wire/message-parser.js';
import { isJsonObject, type JsonValue } from '../wire/value.js';
import { RemoteError } from './errors.js';

/** Far more than any reply of an agent (a filesystem is some 400 bytes of one), far less than what would hurt. */
const replyLimits: WireLimits = {
  tokenBytes: 8 * 1024 * 1024,
  tokens: 512 * 1024,
  nesting: 64,
  valueBytes: 24 * 1024 * 1024,
};
/**
 * So much may come unasked for; beyond, the peer is mad or hostile. `replies`: bytes, in sizes of the largest reply.
 */
const floodLimits = { replies: 4, messages: 128 * 1024 } as const;
/** Characters of a peer's own words in an error: people read them. */
const DESC_LIMIT = 4096;

export interface CallOptions {
  /** Milliseconds for everything: the turn of earlier calls, finding the place in the stream, the answer. */
  readonly timeoutMs: number;
  /** Gives up waiting; if the request was sent, its outcome is unknown. */
  readonly signal?: AbortSignal;
}

export interface ClientOptions {
  /** Who is at the other end, for error messages. */
  readonly peer: string;
  /** The command that echoes the integer `id` and precedes its reply with 0xFF. */
  readonly syncCommand: string;
  readonly limits?: WireLimits;
}

interface Waiting {
  readonly what: string;
  readonly matches: (message: JsonValue) => boolean;
  /** Nothing else is expected to come before it: a message beyond the limits is this reply. */
  readonly isNext: boolean;
  readonly resolve: (message: JsonValue) => void;
  readonly reject: (error: Error) => void;
}

export class RpcClient implements AsyncDisposable {
  readonly #stream: ByteStream;
  readonly #options: ClientOptions;
  readonly #limits: WireLimits;
  readonly #parser: MessageParser;
  readonly #idPrefix = `fsb-${randomBytes(6).toString('hex')}-`;
  #calls = 0;
  #turn: Promise<void> = Promise.resolve();
  /** The reply to the last request has come, and nothing after it. */
  #inStep = false;
  #waiting: Waiting | undefined;
  /** Why nothing more can be expected of the stream. */
  #ended: UnreachableError | undefined;
  /** An error answered to nobody in particular: the peer's view of a request it could not read. */
  #strayDesc: string | undefined;
  /** Came since the last reply that was asked for. */
  #unasked = { bytes: 0, messages: 0 };

  constructor(stream: ByteStream, options: ClientOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#limits = options.limits ?? replyLimits;
    this.#parser = new MessageParser(this.#limits);
    void this.#read();
  }

  /** False once the peer has closed its side: no call can succeed any more. */
  get open(): boolean {
    return this.#ended === undefined;
  }

  /**
   * Gives the `return` member of the reply. Throws a RemoteError for what the peer refused; an UnreachableError if it
   * does not answer a sync or has closed; a DeadlineError if the reply does not come in time. `outcome` is `unknown` on
   * those if the request may have been carried out.
   */
  async call(command: string, args: object, options: CallOptions): Promise<JsonValue> {
    const deadline = new Deadline(options.timeoutMs);
    return await this.#inTurn(command, deadline, async () => {
      if (options.signal?.aborted === true) throw this.#givenUp(command, options.signal, 'none');
      if (!this.#inStep) await this.#findPlace(deadline);
      return await this.#request(command, args, deadline, options.signal);
    });
  }

  /** Finds the place in the stream. Throws an UnreachableError if there is no answer in time. */
  async sync(timeoutMs: number): Promise<void> {
    const deadline = new Deadline(timeoutMs);
    await this.#inTurn(this.#options.syncCommand, deadline, () => this.#findPlace(deadline));
  }

  /** May be called again. Never throws. A call under way ends with an UnreachableError. */
  async close(): Promise<void> {
    this.#end(new UnreachableError('E_CLOSED', `${this.#options.peer}: connection closed`, { outcome: 'unknown' }));
    await this.#stream.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #inTurn<T>(command: string, deadline: Deadline, work: () => Promise<T>): Promise<T> {
    const before = this.#turn;
    let release = (): void => undefined;
    this.#turn = new Promise((resolve) => {
      release = resolve;
    });
    try {
      await withLimit(`${this.#options.peer}: turn of ${command}`, deadline.limitMs, before);
      return await work();
    } finally {
      void before.then(release);
    }
  }

  async #request(
    command: string,
    args: object,
    deadline: Deadline,
    signal: AbortSignal | undefined,
  ): Promise<JsonValue> {
    const id = `${this.#idPrefix}${++this.#calls}`;
    const text = encode({ execute: command, arguments: args, id });
    // Until the answer is here, nobody knows where in the stream we are.
    this.#inStep = false;
    this.#strayDesc = undefined;
    const matches = (message: JsonValue): boolean => member(message, 'id') === id;
    const reply = await this.#exchange({ command, matches, isNext: true }, text, deadline, signal);
    if (isJsonObject(reply)) {
      if (reply['return'] !== undefined) return reply['return'];
      const errorClass = member(reply['error'], 'class');
      const desc = member(reply['error'], 'desc');
      if (typeof errorClass === 'string' && typeof desc === 'string') {
        throw new RemoteError(errorClass.slice(0, DESC_LIMIT), desc.slice(0, DESC_LIMIT));
      }
    }
    throw new UnreachableError(
      'E_REPLY',
      `${this.#options.peer}: ${command}: expected a return or an error, found ${quoted(reply)}`,
      {
        outcome: 'unknown',
      },
    );
  }

  async #findPlace(deadline: Deadline): Promise<void> {
    const { peer, syncCommand } = this.#options;
    const id = randomBytes(8).readBigUInt64BE() >> 1n;
    const text = encode({ execute: syncCommand, arguments: { id } });
    // No reply to anything sent before can carry this id; everything else that comes until then is dropped.
    const matches = (message: JsonValue): boolean => {
      const value = member(message, 'return');
      return (typeof value === 'bigint' || typeof value === 'number') && BigInt(value) === id;
    };
    try {
      await this.#exchange({ command: syncCommand, matches, isNext: false }, `\xff${text}`, deadline, undefined);
    } catch (cause) {
      if (!(cause instanceof DeadlineError)) throw notSent(cause);
      throw new UnreachableError('E_NO_ANSWER', `${peer} does not answer within ${deadline.limitMs} ms`, { cause });
    }
  }

  async #exchange(
    { command, matches, isNext }: { command: string } & Pick<Waiting, 'matches' | 'isNext'>,
    text: string,
    deadline: Deadline,
    signal: AbortSignal | undefined,
  ): Promise<JsonValue> {
    if (this.#ended !== undefined) throw notSent(this.#ended);
    const { peer } = this.#options;
    const what = `${peer}: ${command}`;
    const reply = new Promise<JsonValue>((resolve, reject) => {
      this.#waiting = { what, matches, isNext, resolve, reject };
    });
    const abort = (): void => {
      this.#waiting?.reject(this.#givenUp(command, signal, 'unknown'));
    };
    signal?.addEventListener('abort', abort, { once: true });
    const written = this.#stream.write(Buffer.from(`${text}\n`, 'latin1')).catch((cause: unknown) => {
      throw new UnreachableError('E_WRITE', `${what}: cannot be sent`, { cause, outcome: 'unknown' });
    });
    try {
      const both = Promise.all([reply, written]).then(([message]) => message);
      return await withLimit(what, deadline.remainingMs, both, 'unknown');
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
      const stray = this.#strayDesc;
      const why = stray === undefined ? what : `${what} (the peer says: ${stray})`;
      throw new DeadlineError(why, deadline.limitMs, { outcome: 'unknown', facts: { peer } });
    } finally {
      signal?.removeEventListener('abort', abort);
      this.#waiting = undefined;
    }
  }

  #givenUp(what: string, signal: AbortSignal | undefined, outcome: Outcome): BridgeError {
    return new BridgeError('E_ABORTED', `${this.#options.peer}: ${what}: given up`, { outcome, cause: signal?.reason });
  }

  async #read(): Promise<void> {
    const { peer } = this.#options;
    const floodBytes = floodLimits.replies * this.#limits.tokenBytes;
    try {
      for await (const chunk of this.#stream.read()) {
        this.#unasked.bytes += chunk.length;
        for (const message of this.#parser.feed(chunk)) this.#take(message);
        // Half of something would spoil the next reply.
        if (this.#waiting === undefined && !this.#parser.atRest) this.#inStep = false;
        if (this.#unasked.bytes > floodBytes || this.#unasked.messages > floodLimits.messages)
          this.#endFlood(floodBytes);
        if (this.#ended !== undefined) return;
      }
      const why = this.#strayDesc === undefined ? '' : ` (it says: ${this.#strayDesc})`;
      this.#end(new UnreachableError('E_CLOSED', `${peer} closed the connection${why}`, { outcome: 'unknown' }));
    } catch (cause) {
      this.#end(new UnreachableError('E_READ', `${peer}: reading failed`, { cause, outcome: 'unknown' }));
    }
  }

  #take(message: WireMessage): void {
    const waiting = this.#waiting;
    this.#unasked.messages++;
    if (waiting === undefined) this.#inStep = false;
    if (message.kind === 'error' || message.kind === 'oversize') {
      const isBeyond = message.kind === 'oversize' || message.limit;
      if (isBeyond && waiting?.isNext === true) waiting.reject(this.#tooLarge(waiting.what, message.desc));
      return;
    }
    if (waiting?.matches(message.value) === true) {
      this.#unasked = { bytes: 0, messages: 0 };
      this.#inStep = true;
      this.#waiting = undefined;
      waiting.resolve(message.value);
      return;
    }
    const desc = member(member(message.value, 'error'), 'desc');
    if (typeof desc === 'string') this.#strayDesc = desc.slice(0, 200);
  }

  #tooLarge(what: string, desc: string): UnreachableError {
    const { tokenBytes, tokens, nesting } = this.#limits;
    const expected = `expected at most ${tokenBytes} bytes, ${tokens} tokens and ${nesting} levels`;
    return new UnreachableError('E_REPLY_LIMIT', `${what}: the reply is too large: ${expected}, found: ${desc}`, {
      outcome: 'unknown',
    });
  }

  #endFlood(floodBytes: number): void {
    const what = this.#waiting?.what ?? this.#options.peer;
    const most = `${floodBytes} bytes or ${floodLimits.messages} messages`;
    const message = `${what}: more than ${most} came that were not asked for, connection closed`;
    this.#end(new UnreachableError('E_FLOOD', message, { outcome: 'unknown' }));
    void this.#stream.close();
  }

  #end(error: UnreachableError): void {
    this.#ended ??= error;
    this.#waiting?.reject(error);
  }
}

function member(value: JsonValue | undefined, name: string): JsonValue | undefined {
  return isJsonObject(value) ? value[name] : undefined;
}

/** The same failure, of a request that never went out. */
function notSent(error: unknown): unknown {
  if (!(error instanceof UnreachableError)) return error;
  return new UnreachableError(error.code, error.message, { facts: error.facts, cause: error.cause });
}

const quoted = (value: JsonValue): string => encode(value).slice(0, 200);
