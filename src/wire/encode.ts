// Turns values into bytes, in QEMU's hand: `": "` and `", "`, everything beyond printable ASCII as \uXXXX, one line.
// Members come out in the order in which they are in the object (QEMU's order is that of a hash table; nobody may rely
// on it).
import { JsonFloat } from './value.js';

/** Precedes the reply to guest-sync-delimited: no JSON text holds this byte. */
const SENTINEL = 0xff;

/**
 * One line of JSON with its newline, preceded by SENTINEL if `delimited`. Members that are undefined are left out.
 * Throws a TypeError for what JSON cannot say (NaN, functions, undefined in a list): a bug of the caller.
 */
export function encodeLine(value: unknown, delimited = false): Uint8Array {
  return Buffer.from(`${delimited ? String.fromCharCode(SENTINEL) : ''}${encode(value)}\n`, 'latin1');
}

/** JSON text in ASCII, as encodeLine. */
export function encode(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return quote(value);
    case 'boolean':
    case 'bigint':
      return String(value);
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError(`JSON has no number ${value}`);
      return String(value);
    case 'object':
      break;
    case 'undefined':
    case 'function':
    case 'symbol':
      throw new TypeError(`JSON has no ${typeof value}`);
  }
  if (value === null) return 'null';
  if (value instanceof JsonFloat) return float(value.value);
  if (Array.isArray(value)) return `[${value.map(encode).join(', ')}]`;
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .map(([name, member]) => `${quote(name)}: ${encode(member)}`);
  return `{${members.join(', ')}}`;
}

const shortEscapes = new Map([
  ['"', '\\"'],
  ['\\', '\\\\'],
  ['\b', '\\b'],
  ['\f', '\\f'],
  ['\n', '\\n'],
  ['\r', '\\r'],
  ['\t', '\\t'],
]);

/** A long text is escaped in pieces: replace() holds every match until it is done, at many times their size. */
const PIECE_CHARACTERS = 16_384;

function quote(text: string): string {
  let quoted = '"';
  for (let from = 0; from < text.length; from += PIECE_CHARACTERS) {
    const piece = text.slice(from, from + PIECE_CHARACTERS);
    quoted += piece.replace(/["\\]|[^ -~]/g, (unit, at: number) => shortEscapes.get(unit) ?? escape(text, from + at));
  }
  return `${quoted}"`;
}

function escape(text: string, at: number): string {
  const unit = text.charCodeAt(at);
  // A surrogate that stands alone (a file name that is no text) must not make the line unreadable.
  if (isSurrogate(unit) && !isPaired(text, at)) return '\\uFFFD';
  return `\\u${unit.toString(16).toUpperCase().padStart(4, '0')}`;
}

const isSurrogate = (unit: number): boolean => unit >= 0xd800 && unit <= 0xdfff;

function isPaired(text: string, at: number): boolean {
  const first = text.charCodeAt(at) < 0xdc00 ? at : at - 1;
  return (text.codePointAt(first) ?? 0) > 0xffff;
}

/** A double as C's `%.17g` writes it; what is beyond a double as a number that reads back as the same. */
function float(value: number): string {
  if (value === Infinity) return '1e999';
  if (value === -Infinity) return '-1e999';
  if (Number.isNaN(value)) throw new TypeError('JSON has no number NaN');
  const [digits = '', exponentText = '0'] = value.toExponential(16).split('e');
  const exponent = Number(exponentText);
  const sign = Object.is(value, -0) ? '-' : '';
  if (exponent >= -4 && exponent < 17) return sign + trim(value.toFixed(16 - exponent));
  const magnitude = String(Math.abs(exponent)).padStart(2, '0');
  return `${trim(digits)}e${exponent < 0 ? '-' : '+'}${magnitude}`;
}

const trim = (digits: string): string => (digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits);
