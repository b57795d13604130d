// The server side: requests in, replies out, in order on each channel. Which operations there are, whether one may run
// now and what it does is given from outside. The order of replies, and what a sync overtakes, is channel.ts.
import type { ByteStream } from '../transport/byte-stream.js';
import type { JsonObject } from '../wire/value.js';
import { MessageParser, type WireLimits } from '../wire/message-parser.js';
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
    const parser = new MessageParser(this.#options.limits);
    const channel = new Channel(this.#options, context, stream);
    try {
      for await (const chunk of stream.read()) {
        for (const message of parser.feed(chunk)) channel.accept(message);
        await channel.waitForRoom();
      }
    } finally {
      await channel.finish();
    }
  }
}
