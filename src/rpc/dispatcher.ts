// The server side: requests in, replies out, in order on each channel. Which operations there are, whether one may run
// now and what it does is given from outside. The order of replies, and what a sync overtakes, is channel.ts.
import type { ByteStream } from '../transport/byte-stream.js';
import type { JsonObject } from '../wire/value.js';
import { MessageParser, qemuLimits, type WireLimits } from '../wire/message-parser.js';
import { Channel } from './channel.js';

/** A declared command bound to its handler. `C` is what the server knows of a channel, e.g. its name. */
export interface Operation<C> {
  readonly name: string;
  /** False: nothing is sent on success. */
  readonly successResponse: boolean;
  /** The reply is preceded by 0xFF. */
  readonly delimited: boolean;
  /**
   * queued       answered in turn
   * sync         overtakes a pending `abandonable` operation, whose late reply is then never sent
   * abandonable  goes on without its requester when a sync overtakes it
   */
  readonly order: 'queued' | 'sync' | 'abandonable';
  /** Checks the arguments, at once, and runs the handler. Throws or rejects with a RemoteError, or what toWireError makes one of. */
  call(args: JsonObject, context: C): Promise<unknown>;
}

export interface DispatcherOptions<C> {
  readonly operations: ReadonlyMap<string, Operation<C>>;
  /** What a requester is told (as CommandNotFound) if an operation may not run now; undefined if it may. */
  readonly refusal: (name: string, context: C) => string | undefined;
  readonly limits?: WireLimits;
  /** Told of every error that was answered, as thrown: for the log. Must not throw. */
  readonly onError?: (error: unknown, command: string | undefined, context: C) => void;
}

/**
 * As QEMU's for what may be said, but a requester cannot make this process keep more than this of one message. No
 * request of ours takes a hundredth of it; the rest is for ids, which are echoed.
 */
const requestLimits: WireLimits = { ...qemuLimits, valueBytes: 8 * 1024 * 1024 };

/** Read at once, as qemu-ga does: a chunk of 64 KiB may be as many messages. */
const PIECE_BYTES = 4096;

export class Dispatcher<C> {
  readonly #options: DispatcherOptions<C>;

  constructor(options: DispatcherOptions<C>) {
    this.#options = options;
  }

  /**
   * Answers what the peer sends until it ends its side, and then what is still waiting: a request that was received
   * is carried out, even if its requester has gone. Each call has its own parser: half a request left by one peer
   * does not touch the next. Does not close the stream. Throws what reading throws, after that.
   */
  async serve(stream: ByteStream, context: C): Promise<void> {
    const parser = new MessageParser(this.#options.limits ?? requestLimits);
    const channel = new Channel(this.#options, context, stream);
    try {
      for await (const chunk of stream.read()) {
        for (let from = 0; from < chunk.length; from += PIECE_BYTES) {
          for (const message of parser.feed(chunk.subarray(from, from + PIECE_BYTES))) channel.accept(message);
          await channel.waitForRoom();
        }
      }
    } finally {
      await channel.finish();
    }
  }
}
