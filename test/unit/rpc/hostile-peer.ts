// An agent that answers syncs as it should, and anything else with the bytes a test gives it.
import type { ByteStream } from '../../../src/transport/byte-stream.js';

export interface HostilePeer {
  readonly stream: ByteStream;
  /** What a request that is no sync is answered with: each request takes the next. */
  readonly answers: ((id: string) => Iterable<Uint8Array> | AsyncIterable<Uint8Array>)[];
  /** Bytes given out. */
  readonly sentBytes: number;
  readonly closed: boolean;
}

export function hostilePeer(): HostilePeer {
  const queue: (Iterable<Uint8Array> | AsyncIterable<Uint8Array>)[] = [];
  const answers: HostilePeer['answers'] = [];
  let wake = (): void => undefined;
  let closed = false;
  let sentBytes = 0;
  async function* read(): AsyncGenerator<Uint8Array> {
    while (!closed) {
      const next = queue.shift();
      if (next === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      let pieces = 0;
      for await (const piece of next) {
        if (isClosed()) return;
        sentBytes += piece.length;
        yield piece;
        // As a socket does: timers have their turn.
        if (++pieces % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }
  // What TypeScript takes for settled may change while waiting.
  const isClosed = (): boolean => closed;
  return {
    answers,
    get sentBytes() {
      return sentBytes;
    },
    get closed() {
      return closed;
    },
    stream: {
      read,
      write(bytes) {
        const text = Buffer.from(bytes).toString('latin1').replace('\xff', '');
        const sync = /"id": (\d+)\}\}\n$/.exec(text)?.[1];
        const { id } = JSON.parse(text) as { id: string };
        const answer =
          sync === undefined ? answers.shift()?.(id) : [Buffer.from(`\xff{"return": ${sync}}\n`, 'latin1')];
        if (answer !== undefined) queue.push(answer);
        wake();
        return Promise.resolve();
      },
      close() {
        closed = true;
        wake();
        return Promise.resolve();
      },
    },
  };
}
