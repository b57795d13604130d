// Cuts the bytes of a monitor into texts of whole JSON objects. It follows braces and strings, so that a monitor with
// `pretty=on` (one message over many lines) is read as well as the usual one message per line. Size and depth are limited,
// because a program behind a wrong socket path may send anything, without end. The number of values is limited, because
// they take many times the room of their text. It parses nothing.

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACE = 0x7d;
const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;
const COLON = 0x3a;
const isSpace = (byte: number): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
/** The limit of QEMU's own parser. */
const MAX_DEPTH = 1024;
/** Brackets, commas and colons of one message: the longest reply of QEMU 10.2 (query-qmp-schema) has some 60 000. */
const MAX_MARKS = 512 * 1024;

/** Room that is kept from one message to the next. */
const KEPT_BYTES = 64 * 1024;

export class MessageSplitter {
  readonly #maxBytes: number;
  #held = Buffer.alloc(0);
  #size = 0;
  #depth = 0;
  #marks = 0;
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
        if (isSpace(byte)) {
          start = at + 1;
          continue;
        }
        if (byte !== OPEN_BRACE) throw new Error(`expected a JSON object, found ${excerpt(chunk.subarray(at))}`);
        start = at;
      }
      if (this.#step(byte)) {
        this.#take(chunk.subarray(start, at + 1));
        messages.push(this.#held.toString('utf8', 0, this.#size));
        if (this.#held.length > KEPT_BYTES) this.#held = Buffer.alloc(0);
        this.#size = this.#marks = 0;
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
    switch (byte) {
      case QUOTE:
        this.#inString = true;
        return false;
      case OPEN_BRACE:
      case OPEN_BRACKET:
        this.#depth++;
        this.#mark();
        if (this.#depth > MAX_DEPTH) throw new Error(`message nested deeper than ${MAX_DEPTH}`);
        return false;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        this.#depth--;
        return this.#depth === 0;
      case COMMA:
      case COLON:
        this.#mark();
    }
    return false;
  }

  #mark(): void {
    this.#marks++;
    if (this.#marks > MAX_MARKS) throw new Error(`message of more than ${MAX_MARKS} values`);
  }

  // Copied into one buffer: a list of the parts would be larger than its bytes if they come one at a time.
  #take(part: Buffer): void {
    const size = this.#size + part.length;
    if (size > this.#maxBytes) throw new Error(`message longer than ${this.#maxBytes} bytes`);
    if (size > this.#held.length) {
      const grown = Buffer.alloc(Math.min(2 * size, this.#maxBytes));
      this.#held.copy(grown, 0, 0, this.#size);
      this.#held = grown;
    }
    part.copy(this.#held, this.#size);
    this.#size = size;
  }
}

/** The first bytes, safe to print. */
function excerpt(bytes: Buffer): string {
  return JSON.stringify(bytes.subarray(0, 60).toString('latin1'));
}
