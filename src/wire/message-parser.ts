// Cuts bytes into messages. A message ends where its brackets balance (or a closing one too many comes), not at a
// newline; a lexical error or a limit drops what there is of it. The texts are QEMU's (json-streamer, up to 10.2). What
// a peer sends is read to its end, however long, but what is kept of it is bounded: a value is many times its text.
import { Lexer, type TokenKind } from './lexer.js';
import { decodeLossy } from './text.js';
import { ValueParser } from './value-parser.js';
import type { JsonValue } from './value.js';

export interface WireLimits {
  /** Bytes in all tokens of one message, white space apart. */
  readonly tokenBytes: number;
  readonly tokens: number;
  readonly nesting: number;
  /** Bytes of memory for the value of one message, as value-parser.ts estimates them. Ours: QEMU has no such limit. */
  readonly valueBytes: number;
}

/** QEMU's own limits. A daemon may go lower; the texts stay the same. */
export const qemuLimits: WireLimits = {
  tokenBytes: 64 * 1024 * 1024,
  tokens: 2 * 1024 * 1024,
  nesting: 1024,
  valueBytes: Infinity,
};

export type WireMessage = (
  | { readonly kind: 'value'; readonly value: JsonValue }
  /** Not JSON, or beyond one of QEMU's limits (`limit`); `desc` is what a peer is told. */
  | { readonly kind: 'error'; readonly desc: string; readonly limit: boolean }
  /** JSON, but beyond `valueBytes`: all that is known is whether it is an object. */
  | { readonly kind: 'oversize'; readonly desc: string; readonly isObject: boolean }
) & {
  /** Bytes of memory that it holds, estimated. */
  readonly bytes: number;
};

/** Memory that an error takes, its text apart. */
const ERROR_BYTES = 128;

export class MessageParser {
  readonly #limits: WireLimits;
  readonly #lexer: Lexer;
  readonly #parser: ValueParser;
  #braces = 0;
  #brackets = 0;
  #tokens = 0;
  #bytes = 0;
  #messages: WireMessage[] = [];

  constructor(limits: WireLimits = qemuLimits) {
    this.#limits = limits;
    this.#lexer = new Lexer(limits.tokenBytes, Math.min(limits.tokenBytes, limits.valueBytes));
    this.#parser = new ValueParser(limits.valueBytes);
  }

  /** True between two messages: nothing but white space has come since the last one. */
  get atRest(): boolean {
    return this.#tokens === 0 && this.#lexer.atRest;
  }

  /** The messages that `chunk` completes. The chunk is not kept. */
  feed(chunk: Uint8Array): readonly WireMessage[] {
    this.#messages = [];
    this.#lexer.feed(chunk, (kind, text, length) => {
      this.#token(kind, text, length);
    });
    return this.#messages;
  }

  #token(kind: TokenKind, text: Uint8Array, length: number): void {
    if (kind === '{') this.#braces++;
    else if (kind === '}') this.#braces--;
    else if (kind === '[') this.#brackets++;
    else if (kind === ']') this.#brackets--;

    const { tokenBytes, tokens, nesting } = this.#limits;
    if (kind === 'error') {
      // QEMU prints the bytes as a C string: up to the first NUL.
      const nul = text.indexOf(0);
      this.#error(`JSON parse error, stray '${decodeLossy(nul < 0 ? text : text.subarray(0, nul))}'`, false);
    } else if (kind === 'oversize' || this.#bytes + length + 1 > tokenBytes) {
      this.#error('JSON token size limit exceeded', true);
    } else if (this.#tokens + 1 > tokens) {
      this.#error('JSON token count limit exceeded', true);
    } else if (this.#braces + this.#brackets > nesting) {
      this.#error('JSON nesting depth limit exceeded', true);
    } else {
      this.#tokens++;
      this.#bytes += length;
      this.#parser.push(kind, text, length);
      const open = this.#braces > 0 || this.#brackets > 0;
      if (open && this.#braces >= 0 && this.#brackets >= 0) return;
      const parsed = this.#parser.take();
      if ('value' in parsed) this.#emit({ kind: 'value', value: parsed.value, bytes: parsed.bytes });
      else if ('problem' in parsed) this.#error(`JSON parse error, ${parsed.problem}`, false);
      else {
        const desc = `JSON value too large: expected at most ${this.#limits.valueBytes} bytes of memory`;
        this.#emit({ kind: 'oversize', desc, isObject: parsed.isObject, bytes: ERROR_BYTES });
      }
    }
  }

  #error(desc: string, limit: boolean): void {
    this.#emit({ kind: 'error', desc, limit, bytes: ERROR_BYTES + 2 * desc.length });
  }

  #emit(message: WireMessage): void {
    this.#messages.push(message);
    this.#parser.reset();
    this.#braces = this.#brackets = this.#tokens = this.#bytes = 0;
  }
}
