// The connection of one host on a port, from its first byte to its going away, and a little longer for its replies.
import { UnreachableError } from '../errors.js';
import { QUEUE_LIMIT_BYTES, type ByteStream } from './byte-stream.js';
import { Inbox, type InboxSource } from './inbox.js';
import type { PortWriter } from './port-writer.js';

/**
 * How long replies outlive the end of their connection. The kernel tells that a host went and came by another way than
 * it gives the bytes: the end may be seen after the first request of the next host, whose reply must not be dropped
 * (virtio_console: control queue and port queue). A real agent's replies wait for the next host without limit.
 */
const LINGER_MS = 1000;

interface ConnectionSource extends InboxSource {
  /** The connection takes no bytes and gives none any more. */
  over(): void;
}

export class PortConnection implements ByteStream {
  readonly inbox: Inbox;
  readonly #writer: PortWriter;
  readonly #path: string;
  readonly #source: ConnectionSource;
  #queued = 0;
  #takesBytes = true;
  #over = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(writer: PortWriter, path: string, source: ConnectionSource) {
    this.#writer = writer;
    this.#path = path;
    this.#source = source;
    this.inbox = new Inbox(source);
  }

  get takesBytes(): boolean {
    return this.#takesBytes;
  }

  read(): AsyncIterable<Uint8Array> {
    return this.inbox;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#over) throw this.#error('the host has gone');
    if (this.#queued > 0 && this.#queued + bytes.length > QUEUE_LIMIT_BYTES) {
      const error = this.#error(`the host does not read: ${this.#queued} bytes wait, channel reset`);
      this.#reset(error);
      throw error;
    }
    this.#queued += bytes.length;
    try {
      await this.#writer.write(this, bytes);
    } finally {
      this.#queued -= bytes.length;
    }
  }

  // The port stays open and the host may still be there: what it sends next is a new connection.
  close(): Promise<void> {
    if (this.#takesBytes) {
      this.linger();
      this.#source.resume();
    }
    if (this.#queued === 0) this.end();
    return Promise.resolve();
  }

  writingFailed(name: string): void {
    this.#reset(this.#error(`writing failed: ${name}`));
  }

  /** Takes no more bytes. What was read is still given out, and answered if that does not take long. */
  linger(): void {
    if (!this.#takesBytes) return;
    this.#takesBytes = false;
    this.inbox.end();
    this.#timer = setTimeout(() => {
      this.end();
    }, LINGER_MS).unref();
  }

  #reset(error: Error): void {
    if (this.#over) return;
    const wasTaking = this.#takesBytes;
    this.end(error);
    if (wasTaking) this.#source.resume();
  }

  /** Ends the connection. Bytes that were read are still given out; those that were not written are dropped. */
  end(error?: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#takesBytes = false;
    clearTimeout(this.#timer);
    this.#writer.drop(this, error ?? this.#error('the host has gone'));
    this.inbox.end(error);
    this.#source.over();
  }

  #error(what: string): UnreachableError {
    return new UnreachableError('E_PORT', `${this.#path}: ${what}`, { facts: { path: this.#path } });
  }
}
