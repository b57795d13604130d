// Tells when a client has ended its side of a stream, or is lost, without waiting for what it had asked for before.
import type { ByteStream } from '../transport/byte-stream.js';

/** The same stream, and a signal that is aborted as soon as reading it has come to its end. */
export function withEnd(stream: ByteStream): { readonly watched: ByteStream; readonly ended: AbortSignal } {
  const end = new AbortController();
  const watched: ByteStream = {
    async *read() {
      try {
        yield* stream.read();
      } finally {
        end.abort(new Error('the connection was ended by its requester'));
      }
    },
    write: (bytes) => stream.write(bytes),
    close: () => stream.close(),
  };
  return { watched, ended: end.signal };
}
