// Bytes of a monitor -> texts of whole JSON objects. Follows braces and strings, so that a monitor with `pretty=on`
// (one message over many lines) is read as well as the usual one message per line. Limits size and depth, because what
// sits behind a wrong socket path may send anything, without end. Parses nothing.

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = [0x7b, 0x5b];
const CLOSE = [0x7d, 0x5d];
const SPACE = [0x20, 0x09, 0x0a, 0x0d];
/** As QEMU's own parser. */
const MAX_DEPTH = 1024;

export class MessageSplitter {
  readonly #maxBytes: number;
  #parts: Buffer[] = [];
  #size = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** @param maxBytes the longest message accepted */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Takes the next bytes; gives the messages that are complete with them. Throws an Error that says what was found
   * where an object was expected; nothing more may be appended then.
   */
  append(chunk: Buffer): string[] {
    const messages: string[] = [];
    let start = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] as number;
      if (this.#depth === 0) {
        if (SPACE.includes(byte)) {
          start = at + 1;
          continue;
        }
        if (byte !== OPEN[0]) throw new Error(`expected a JSON object, found ${excerpt(chunk.subarray(at))}`);
        start = at;
      }
      if (this.#step(byte)) {
        this.#take(chunk.subarray(start, at + 1));
        messages.push(Buffer.concat(this.#parts, this.#size).toString('utf8'));
        this.#parts = [];
        this.#size = 0;
        start = at + 1;
      }
    }
    if (this.#depth > 0) this.#take(chunk.subarray(start));
    return messages;
  }

  // True if this byte ends the message.
  #step(byte: number): boolean {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inString = false;
      return false;
    }
    if (byte === QUOTE) this.#inString = true;
    else if (OPEN.includes(byte)) {
      this.#depth++;
      if (this.#depth > MAX_DEPTH) throw new Error(`message nested deeper than ${MAX_DEPTH}`);
    } else if (CLOSE.includes(byte)) {
      this.#depth--;
      return this.#depth === 0;
    }
    return false;
  }

  #take(part: Buffer): void {
    this.#size += part.length;
    if (this.#size > this.#maxBytes) throw new Error(`message longer than ${this.#maxBytes} bytes`);
    this.#parts.push(part);
  }
}

/** The first bytes, safe to print. */
function excerpt(bytes: Buffer): string {
  return JSON.stringify(bytes.subarray(0, 60).toString('latin1'));
}
