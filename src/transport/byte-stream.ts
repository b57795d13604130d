// The one shape of a connection above the transports: bytes in, bytes out. Their meaning is wire/'s business, and who
// may say what is the agent's.

export interface ByteStream {
  /**
   * The bytes that the peer sends, until it ends its side. May be called once. Throws an
   * UnreachableError that says what the connection died of; a peer that merely goes away is an end, not an error.
   */
  read(): AsyncIterable<Uint8Array>;
  /**
   * Settles when the operating system has the bytes; writes keep their order without being awaited. Throws an
   * UnreachableError if the connection is closed, or if the peer has not read for so long that more than
   * `queueLimitBytes` wait: the connection is then reset, since a peer that never reads must not wedge anybody.
   */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends the connection after what was written. May be called again. Never throws. */
  close(): Promise<void>;
}

/** An open channel. Each peer is given to its `onStream`, one ByteStream per connection. */
export interface Listener {
  /** Takes no more peers and drops the ones there are. May be called again. Never throws. */
  close(): Promise<void>;
}

export type OnStream = (stream: ByteStream) => void;

/** Output that may wait for a peer that does not read. One reply larger than this is sent when nothing else waits. */
export const QUEUE_LIMIT_BYTES = 4 * 1024 * 1024;
