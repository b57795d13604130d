// Bytes to messages. A message ends where its brackets balance (or a closing one too many comes), not at a newline;
// a lexical error or a limit drops what there is of it. The texts are QEMU's (json-streamer, up to 10.2).
import { Lexer, type TokenKind } from './lexer.js';
import { decodeLossy } from './text.js';
import { ValueParser } from './value-parser.js';
import type { JsonValue } from './value.js';

export interface WireLimits {
  /** Bytes in all tokens of one message, white space apart. */
  readonly tokenBytes: number;
  readonly tokens: number;
  readonly nesting: number;
}

/** QEMU's own. A daemon may go lower; the texts stay the same. */
export const qemuLimits: WireLimits = { tokenBytes: 64 * 1024 * 1024, tokens: 2 * 1024 * 1024, nesting: 1024 };

export type WireMessage = (
  | { readonly kind: 'value'; readonly value: JsonValue }
  /** Not JSON, or beyond a limit; `desc` is what a peer is told. */
  | { readonly kind: 'error'; readonly desc: string }
) & {
  /** What it took of the input, white space apart. */
  readonly bytes: number;
};

export class MessageParser {
  readonly #limits: WireLimits;
  readonly #lexer: Lexer;
  readonly #parser = new ValueParser();
  #braces = 0;
  #brackets = 0;
  #tokens = 0;
  #bytes = 0;
  #messages: WireMessage[] = [];

  constructor(limits: WireLimits = qemuLimits) {
    this.#limits = limits;
    this.#lexer = new Lexer(limits.tokenBytes);
  }

  /** The messages that `chunk` completes. The chunk is not kept. */
  feed(chunk: Uint8Array): readonly WireMessage[] {
    this.#messages = [];
    this.#lexer.feed(chunk, (kind, text) => {
      this.#token(kind, text);
    });
    return this.#messages;
  }

  #token(kind: TokenKind, text: Uint8Array): void {
    if (kind === '{') this.#braces++;
    else if (kind === '}') this.#braces--;
    else if (kind === '[') this.#brackets++;
    else if (kind === ']') this.#brackets--;

    const { tokenBytes, tokens, nesting } = this.#limits;
    if (kind === 'error') {
      // QEMU prints the bytes as a C string: up to the first NUL.
      const nul = text.indexOf(0);
      this.#error(`JSON parse error, stray '${decodeLossy(nul < 0 ? text : text.subarray(0, nul))}'`, text.length);
    } else if (kind === 'oversize' || this.#bytes + text.length + 1 > tokenBytes) {
      this.#error('JSON token size limit exceeded', text.length);
    } else if (this.#tokens + 1 > tokens) {
      this.#error('JSON token count limit exceeded', text.length);
    } else if (this.#braces + this.#brackets > nesting) {
      this.#error('JSON nesting depth limit exceeded', text.length);
    } else {
      this.#tokens++;
      this.#bytes += text.length;
      this.#parser.push(kind, text);
      const open = this.#braces > 0 || this.#brackets > 0;
      if (open && this.#braces >= 0 && this.#brackets >= 0) return;
      const parsed = this.#parser.take();
      if ('value' in parsed) this.#emit({ kind: 'value', value: parsed.value, bytes: this.#bytes });
      else this.#error(`JSON parse error, ${parsed.problem}`, 0);
    }
  }

  #error(desc: string, extraBytes: number): void {
    this.#emit({ kind: 'error', desc, bytes: this.#bytes + extraBytes });
  }

  #emit(message: WireMessage): void {
    this.#messages.push(message);
    this.#parser.reset();
    this.#braces = this.#brackets = this.#tokens = this.#bytes = 0;
  }
}
