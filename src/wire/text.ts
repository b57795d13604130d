// Decodes bytes to text. Input is "modified UTF-8" as QEMU reads it: UTF-8 without surrogates and noncharacters, in
// which U+0000 may also be written C0 80 (and in no other overlong form).

/** The text of a string token, or why it has none (QEMU's words). */
export type Decoded = { readonly text: string } | { readonly problem: string };

const BACKSLASH = 0x5c;
const simpleEscapes = new Map<number, number>([
  [0x22, 0x22],
  [0x27, 0x27],
  [BACKSLASH, BACKSLASH],
  [0x2f, 0x2f],
  [0x62, 0x08],
  [0x66, 0x0c],
  [0x6e, 0x0a],
  [0x72, 0x0d],
  [0x74, 0x09],
]);

/** Decodes a string token, quotes included. */
export function decodeString(token: Uint8Array): Decoded {
  const end = token.length - 1;
  if (isPlain(token, end)) return { text: latin1(token, 1, end) };
  const out = new CodeUnits(end);
  for (let at = 1; at < end;) {
    if (token[at] !== BACKSLASH) {
      const point = codePoint(token, at, end);
      if (point.value < 0) return { problem: 'invalid UTF-8 sequence in string' };
      out.push(point.value);
      at = point.end;
      continue;
    }
    const letter = token[at + 1] ?? 0;
    const simple = simpleEscapes.get(letter);
    if (simple !== undefined) {
      out.push(simple);
      at += 2;
    } else if (letter === 0x75) {
      const point = unicodeEscape(token, at);
      if (point.value < 0) {
        // QEMU quotes as many bytes as it took for the escape, be they one or not.
        return { problem: `${decodeLossy(token.subarray(at, point.end))} is not a valid Unicode character` };
      }
      out.push(point.value);
      at = point.end;
    } else {
      return { problem: 'invalid escape sequence in string' };
    }
  }
  return { text: out.text() };
}

/** Decodes what may be no text at all, for an error message: each broken sequence becomes one U+FFFD. */
export function decodeLossy(bytes: Uint8Array): string {
  const out = new CodeUnits(bytes.length);
  for (let at = 0; at < bytes.length;) {
    const point = codePoint(bytes, at, bytes.length);
    out.push(point.value < 0 ? 0xfffd : point.value);
    at = point.end;
  }
  return out.text();
}

interface Point {
  /** Negative if there is no code point. */
  readonly value: number;
  readonly end: number;
}

function codePoint(bytes: Uint8Array, at: number, limit: number): Point {
  const lead = bytes[at] ?? 0;
  if (lead < 0x80) return { value: lead, end: at + 1 };
  if (lead < 0xc0 || lead >= 0xfe) return { value: -1, end: at + 1 };
  const length = Math.clz32(~(lead << 24));
  let value = lead & (0x7f >> length);
  let end = at + 1;
  for (; end < at + length; end++) {
    const byte = end < limit ? (bytes[end] ?? 0) : 0;
    if ((byte & 0xc0) !== 0x80) return { value: -1, end };
    value = value * 64 + (byte & 0x3f);
  }
  const smallest = [0x80, 0x800, 0x10000, 0x200000, 0x4000000][length - 2] ?? 0;
  const overlong = value < smallest && !(value === 0 && length === 2);
  return { value: overlong || !isCharacter(value) ? -1 : value, end };
}

function unicodeEscape(token: Uint8Array, at: number): Point {
  const first = hex4(token, at + 2);
  const end = at + 6;
  if (first < 0xd800 || first > 0xdbff || token[end] !== BACKSLASH || token[end + 1] !== 0x75) {
    return { value: isCharacter(first) ? first : -1, end };
  }
  const second = hex4(token, end + 2);
  if (second < 0xdc00 || second > 0xdfff) return { value: -1, end };
  const value = 0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
  return { value: isCharacter(value) ? value : -1, end: end + 6 };
}

function hex4(bytes: Uint8Array, at: number): number {
  const digits = latin1(bytes, at, at + 4);
  return /^[0-9a-fA-F]{4}$/.test(digits) ? Number.parseInt(digits, 16) : -1;
}

/** A Unicode scalar value that is no noncharacter. */
function isCharacter(value: number): boolean {
  return (
    value >= 0 &&
    value <= 0x10ffff &&
    (value < 0xd800 || value > 0xdfff) &&
    (value < 0xfdd0 || value > 0xfdef) &&
    (value & 0xfffe) !== 0xfffe
  );
}

function isPlain(token: Uint8Array, end: number): boolean {
  for (let at = 1; at < end; at++) {
    const byte = token[at] ?? 0;
    if (byte >= 0x80 || byte === BACKSLASH) return false;
  }
  return true;
}

/** ASCII bytes as a string. */
export function latin1(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1', start, end);
}

/** UTF-16 in the making. No encoding above needs more code units than bytes. */
class CodeUnits {
  readonly #units: Uint16Array;
  #length = 0;

  constructor(limit: number) {
    this.#units = new Uint16Array(limit);
  }

  push(point: number): void {
    if (point > 0xffff) {
      this.#units[this.#length++] = 0xd800 + ((point - 0x10000) >> 10);
      this.#units[this.#length++] = 0xdc00 + (point & 0x3ff);
    } else {
      this.#units[this.#length++] = point;
    }
  }

  text(): string {
    return Buffer.from(this.#units.buffer, 0, this.#length * 2).toString('utf16le');
  }
}
