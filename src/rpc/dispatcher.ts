// The server side: takes requests in and gives replies out, in order on each channel. Which operations there are,
// whether one may run now and what it does is given from outside. The order of replies, and what a sync overtakes:
// channel.ts.
import type { ByteStream } from '../transport/byte-stream.js';
import { MessageParser, qemuLimits, type WireLimits } from '../wire/message-parser.js';
import { Channel } from './channel.js';
import type { DispatcherOptions } from './operation.js';

/**
 * As QEMU's for what may be said, but a requester cannot make this process keep more than this of one message. No
 * request of ours takes a hundredth of it; the rest is for ids, which are echoed.
 */
const requestLimits: WireLimits = { ...qemuLimits, valueBytes: 8 * 1024 * 1024 };

/** Bytes parsed in one go, as in qemu-ga: a chunk of 64 KiB may hold as many messages. */
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
