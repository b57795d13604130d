// Cuts bytes into tokens, as QEMU's JSON lexer does (RFC 8259, plus single-quoted strings): a stream of tokens in which
// newlines mean nothing. Control characters and 0xFE/0xFF are lexical errors everywhere; after an error everything is
// skipped up to the next structural character, control character (TAB apart) or 0xFE/0xFF. Decoding strings and
// numbers, and knowing keywords, is the parser's business. Time is linear in the input, however it is cut.

export type TokenKind =
  | '{'
  | '}'
  | '['
  | ']'
  | ':'
  | ','
  | 'string'
  | 'integer'
  | 'float'
  | 'keyword'
  /** Bytes that begin no token, the offending one last. */
  | 'error'
  /** Cut off because it grew beyond the limit; lexing goes on behind it as if it had ended. */
  | 'oversize';

/**
 * `text` is only valid during the call. It is the token's beginning if the token is longer than what is kept. `length`
 * is that of the whole token.
 */
export type TokenSink = (kind: TokenKind, text: Uint8Array, length: number) => void;

// States are numbers below 32, token kinds 32 + their index here; LOOKAHEAD: the byte belongs to what follows.
const kinds = ['{', '}', '[', ']', ':', ',', 'string', 'integer', 'float', 'keyword', 'error'] as const;
const TOKEN = 32;
const LOOKAHEAD = 128;
const token = (kind: (typeof kinds)[number]): number => TOKEN + kinds.indexOf(kind);
const ERROR = token('error');

const START = 0;
const RECOVERY = 1;
const DQ_STRING = 2;
const DQ_ESCAPE = 3;
const SQ_STRING = 4;
const SQ_ESCAPE = 5;
const SIGN = 6;
const ZERO = 7;
const DIGITS = 8;
const POINT = 9;
const FRACTION = 10;
const EXPONENT = 11;
const EXPONENT_SIGN = 12;
const EXPONENT_DIGITS = 13;
const KEYWORD = 14;

const table = buildTable();

export class Lexer {
  readonly #limit: number;
  readonly #keep: number;
  #state = START;
  /** Bytes of the current token that came with earlier chunks, and as many of them as are kept. */
  #before = 0;
  #held = new Uint8Array(64);
  #heldLength = 0;

  /**
   * @param limit bytes in one token
   * @param keep bytes of one token that are kept: what a peer can make this hold
   */
  constructor(limit: number, keep = limit) {
    this.#limit = limit;
    this.#keep = keep;
  }

  /** True between two tokens. */
  get atRest(): boolean {
    return this.#state === START;
  }

  feed(chunk: Uint8Array, sink: TokenSink): void {
    let state = this.#state;
    let start = 0;
    let before = this.#before;
    const give = (kind: TokenKind, end: number): void => {
      const length = before + end - start;
      if (before === 0) {
        sink(kind, chunk.subarray(start, Math.min(end, start + this.#keep)), length);
        return;
      }
      this.#hold(chunk.subarray(start, end));
      const text = this.#held.subarray(0, this.#heldLength);
      this.#heldLength = before = 0;
      sink(kind, text, length);
    };
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] ?? 0;
      for (;;) {
        const found = table[(state << 8) | byte] ?? ERROR;
        const next = found & ~LOOKAHEAD;
        const consumed = found === next;
        const end = consumed ? at + 1 : at;
        if (next >= TOKEN) {
          give(kinds[next - TOKEN] ?? 'error', end);
          start = end;
          state = next === ERROR ? RECOVERY : START;
        } else {
          if (next <= RECOVERY) start = end;
          state = next;
        }
        if (consumed) break;
      }
      if (before + at + 1 - start > this.#limit) {
        give('oversize', at + 1);
        start = at + 1;
        state = START;
      }
    }
    this.#hold(chunk.subarray(start));
    this.#before = before + chunk.length - start;
    this.#state = state;
  }

  #hold(part: Uint8Array): void {
    const length = Math.min(this.#heldLength + part.length, this.#keep);
    if (length > this.#held.length) {
      const grown = new Uint8Array(Math.min(2 * length, Math.max(64, this.#keep)));
      grown.set(this.#held.subarray(0, this.#heldLength));
      this.#held = grown;
    } else if (length <= 64 && this.#held.length > 65_536) {
      // A long token has come and gone: give its memory back.
      this.#held = this.#held.slice(0, 64);
    }
    this.#held.set(part.subarray(0, length - this.#heldLength), this.#heldLength);
    this.#heldLength = length;
  }
}

function buildTable(): Uint8Array {
  const built = new Uint8Array(15 * 256).fill(ERROR);
  const range = (state: number, from: number, to: number, next: number): void => {
    built.fill(next, (state << 8) + from, (state << 8) + to + 1);
  };
  const bytes = (state: number, characters: string, next: number): void => {
    for (const character of characters) built[(state << 8) | character.charCodeAt(0)] = next;
  };
  const ends = (state: number, kind: (typeof kinds)[number]): void => {
    range(state, 0, 0xff, token(kind) | LOOKAHEAD);
  };
  const digits = '0123456789';

  bytes(START, ' \t\r\n', START);
  bytes(START, '"', DQ_STRING);
  bytes(START, "'", SQ_STRING);
  bytes(START, '-', SIGN);
  bytes(START, digits, DIGITS);
  bytes(START, '0', ZERO);
  range(START, 0x61, 0x7a, KEYWORD);
  for (const structural of ['{', '}', '[', ']', ':', ','] as const) bytes(START, structural, token(structural));

  range(RECOVERY, 0x20, 0xfd, RECOVERY);
  bytes(RECOVERY, '\t', RECOVERY);
  range(RECOVERY, 0, 8, START | LOOKAHEAD);
  range(RECOVERY, 10, 0x1f, START | LOOKAHEAD);
  range(RECOVERY, 0xfe, 0xff, START | LOOKAHEAD);
  bytes(RECOVERY, '{}[]:,', START | LOOKAHEAD);

  for (const [inside, escape, quote] of [
    [DQ_STRING, DQ_ESCAPE, '"'],
    [SQ_STRING, SQ_ESCAPE, "'"],
  ] as const) {
    range(inside, 0x20, 0xfd, inside);
    bytes(inside, '\\', escape);
    bytes(inside, quote, token('string'));
    range(escape, 0x20, 0xfd, inside);
  }

  bytes(SIGN, digits, DIGITS);
  bytes(SIGN, '0', ZERO);
  ends(ZERO, 'integer');
  bytes(ZERO, digits, ERROR);
  bytes(ZERO, '.', POINT);
  ends(DIGITS, 'integer');
  bytes(DIGITS, digits, DIGITS);
  bytes(DIGITS, '.', POINT);
  bytes(DIGITS, 'eE', EXPONENT);
  bytes(POINT, digits, FRACTION);
  ends(FRACTION, 'float');
  bytes(FRACTION, digits, FRACTION);
  bytes(FRACTION, 'eE', EXPONENT);
  bytes(EXPONENT, '+-', EXPONENT_SIGN);
  bytes(EXPONENT, digits, EXPONENT_DIGITS);
  bytes(EXPONENT_SIGN, digits, EXPONENT_DIGITS);
  ends(EXPONENT_DIGITS, 'float');
  bytes(EXPONENT_DIGITS, digits, EXPONENT_DIGITS);

  ends(KEYWORD, 'keyword');
  range(KEYWORD, 0x61, 0x7a, KEYWORD);
  return built;
}
