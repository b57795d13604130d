// Builds one value of its tokens, one by one, with QEMU's words for what is wrong. The first error stands; what follows
// is ignored until the caller (message-parser.ts), who knows where a message ends, takes the result. A value that would
// take more memory than allowed is no longer built: its tokens are still checked, and its content is let go.
import { decodeString, latin1 } from './text.js';
import type { TokenKind } from './lexer.js';
import { isJsonObject, JsonFloat, type JsonObject, type JsonValue } from './value.js';

export type Parsed =
  /** `bytes`: memory that the value holds, estimated. */
  | { readonly value: JsonValue; readonly bytes: number }
  | { readonly problem: string }
  /** The value takes more memory than allowed. */
  | { readonly oversize: true; readonly isObject: boolean };

type Expected = 'value' | 'element or end' | 'separator in list' | 'key or end' | 'key' | 'colon' | 'separator in dict';

interface Frame {
  container: JsonValue[] | JsonObject;
  expected: Expected;
  key: string;
}

/** Bytes of an error text that QEMU keeps. */
const PROBLEM_LIMIT = 1023;
/** Digits and sign beyond which an integer certainly exceeds 64 bits (BigInt would take quadratic time on it). */
const INTEGER_LIMIT = 20;
/**
 * Bytes of memory that each takes, measured on Node 20: an object without a prototype is a hash table, a list has room
 * to grow.
 */
const cost = { container: 200, member: 56, scalar: 48 } as const;

export class ValueParser {
  readonly #limit: number;
  #frames: Frame[] = [];
  #result: { readonly value: JsonValue } | { readonly problem: string } | undefined;
  #bytes = 0;

  /** @param limit bytes of memory for one value */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** `text` is the token's bytes, or their beginning: read at once, not kept. `length` is that of the whole token. */
  push(kind: Exclude<TokenKind, 'error' | 'oversize'>, text: Uint8Array, length: number): void {
    if (this.#result !== undefined) return;
    this.#spend(kind, length);
    // Half a token says nothing about the other half.
    if (text.length < length) text = kind === 'string' ? emptyString : text;
    const frame = this.#frames.at(-1);
    switch (frame?.expected) {
      case 'separator in list':
      case 'separator in dict':
        this.#separator(frame, kind);
        break;
      case 'colon':
        if (kind === ':') frame.expected = 'value';
        else this.#fail('missing : in object pair');
        break;
      case 'element or end':
        if (kind === ']') this.#close();
        else this.#value(kind, text);
        break;
      case 'key or end':
        if (kind === '}') this.#close();
        else this.#value(kind, text);
        break;
      case 'key':
      case 'value':
      case undefined:
        this.#value(kind, text);
        break;
    }
  }

  /** The value, or what is wrong; ready for the next message. */
  take(): Parsed {
    const result = this.#result ?? { problem: 'premature EOI' };
    const bytes = this.#bytes;
    this.reset();
    if ('problem' in result) return result;
    if (bytes > this.#limit) return { oversize: true, isObject: isJsonObject(result.value) };
    return { value: result.value, bytes };
  }

  reset(): void {
    this.#frames = [];
    this.#result = undefined;
    this.#bytes = 0;
  }

  #isOversize(): boolean {
    return this.#bytes > this.#limit;
  }

  #spend(kind: TokenKind, length: number): void {
    const before = this.#isOversize();
    if (kind === '{' || kind === '[') this.#bytes += cost.container;
    else if (kind === ':') this.#bytes += cost.member;
    else if (kind !== '}' && kind !== ']' && kind !== ',') this.#bytes += cost.scalar + 2 * length;
    if (!before && this.#isOversize()) for (const frame of this.#frames) frame.container = emptyLike(frame.container);
  }

  #separator(frame: Frame, kind: TokenKind): void {
    const list = Array.isArray(frame.container);
    if (kind === ',') frame.expected = list ? 'value' : 'key';
    else if (kind === (list ? ']' : '}')) this.#close();
    else this.#fail(`expected ${frame.expected}`);
  }

  #value(kind: TokenKind, text: Uint8Array): void {
    switch (kind) {
      case '[':
        this.#frames.push({ container: [], expected: 'element or end', key: '' });
        break;
      case '{':
        this.#frames.push({ container: Object.create(null) as JsonObject, expected: 'key or end', key: '' });
        break;
      case 'string': {
        const decoded = decodeString(text);
        if ('text' in decoded) this.#complete(decoded.text);
        else this.#fail(decoded.problem);
        break;
      }
      case 'integer':
        this.#complete(integer(latin1(text, 0, text.length)));
        break;
      case 'float':
        this.#complete(new JsonFloat(Number(latin1(text, 0, text.length))));
        break;
      case 'keyword':
        // Cut here: a cut string would keep all of it alive.
        this.#keyword(latin1(text, 0, Math.min(text.length, PROBLEM_LIMIT)));
        break;
      case ']':
      case '}':
      case ':':
      case ',':
      case 'error':
      case 'oversize':
        this.#fail('expecting value');
    }
  }

  #keyword(word: string): void {
    if (word === 'null') this.#complete(null);
    else if (word === 'true' || word === 'false') this.#complete(word === 'true');
    else this.#fail(`invalid keyword '${word}'`);
  }

  #close(): void {
    const frame = this.#frames.pop();
    if (frame !== undefined) this.#complete(frame.container);
  }

  #complete(value: JsonValue): void {
    const frame = this.#frames.at(-1);
    if (frame === undefined) {
      this.#result = { value };
    } else if (Array.isArray(frame.container)) {
      if (!this.#isOversize()) frame.container.push(value);
      frame.expected = 'separator in list';
    } else if (frame.expected !== 'value') {
      if (typeof value !== 'string') {
        this.#fail('key is not a string in object');
        return;
      }
      frame.key = value;
      frame.expected = 'colon';
    } else if (frame.key in frame.container) {
      this.#fail('duplicate key');
    } else {
      if (!this.#isOversize()) frame.container[frame.key] = value;
      frame.expected = 'separator in dict';
    }
  }

  #fail(problem: string): void {
    this.#result = { problem: problem.slice(0, PROBLEM_LIMIT) };
    this.#frames = [];
  }
}

const emptyString = Buffer.from('""');

const emptyLike = (container: JsonValue[] | JsonObject): JsonValue[] | JsonObject =>
  Array.isArray(container) ? [] : (Object.create(null) as JsonObject);

function integer(digits: string): JsonValue {
  if (digits.length > INTEGER_LIMIT) return new JsonFloat(Number(digits));
  const near = Number(digits);
  if (Number.isSafeInteger(near)) return near === 0 ? 0 : near;
  const exact = BigInt(digits);
  return exact >= -(2n ** 63n) && exact < 2n ** 64n ? exact : new JsonFloat(near);
}
