// Gives bytes that arrive by callback to a `for await`. Holds those that were not taken yet, and tells the source to
// pause and resume, so that a slow reader does not fill the memory.
import { defined } from '../defined.js';

export interface InboxSource {
  pause(): void;
  resume(): void;
}

/** Bytes not yet taken above which the source is paused. */
const HIGH_WATER_BYTES = 256 * 1024;
/** Memory that a chunk takes beside its bytes, of which a peer may send one at a time. */
const CHUNK_BYTES = 128;

export class Inbox implements AsyncIterable<Uint8Array> {
  readonly #source: InboxSource | undefined;
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #end: { readonly error?: Error } | undefined;
  #wake: (() => void) | undefined;
  #paused = false;

  constructor(source?: InboxSource) {
    this.#source = source;
  }

  push(chunk: Uint8Array): void {
    if (this.#end !== undefined) return;
    this.#chunks.push(chunk);
    this.#bytes += CHUNK_BYTES + chunk.length;
    if (this.#bytes > HIGH_WATER_BYTES && !this.#paused) {
      this.#paused = true;
      this.#source?.pause();
    }
    this.#wake?.();
  }

  /** No more bytes: what is there is still given out, then the end or the error. */
  end(error?: Error): void {
    this.#end ??= defined({ error });
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#taken(chunk);
        yield chunk;
        continue;
      }
      if (this.#end !== undefined) {
        if (this.#end.error !== undefined) throw this.#end.error;
        return;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }

  #taken(chunk: Uint8Array): void {
    this.#bytes -= CHUNK_BYTES + chunk.length;
    if (this.#paused && this.#bytes <= HIGH_WATER_BYTES / 2) {
      this.#paused = false;
      this.#source?.resume();
    }
  }
}
