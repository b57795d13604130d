// Turns names of files into text and back. The kernel's are bytes, of any kind but 0; ours are strings, compared,
// joined and told to people. No byte is lost on the way: one that is no part of UTF-8 becomes the lone surrogate U+DC00
// + byte, as in Python (PEP 383, "surrogateescape"). So UTF-8 stays as it is, no valid text has such a surrogate, and
// two names that differ as bytes differ as text. Every path handed to the kernel goes through `pathBytes`; JSON, which
// has no lone surrogates, is told U+FFFD in their place (`tellablePath`), as qemu-ga tells it.
import { isUtf8 } from 'node:buffer';

const ESCAPED = /[\udc80-\udcff]/u;

export function pathText(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const part = bytes.subarray(at, at + sequenceLength(bytes[at] ?? 0));
    const isText = isUtf8(part);
    text += isText ? part.toString('utf8') : String.fromCharCode(0xdc00 + (bytes[at] ?? 0));
    at += isText ? part.length : 1;
  }
  return text;
}

function sequenceLength(lead: number): number {
  return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

export function isUtf8Path(text: string): boolean {
  return !ESCAPED.test(text);
}

export function pathBytes(text: string): Buffer {
  if (isUtf8Path(text)) return Buffer.from(text, 'utf8');
  // The split keeps what it splits at: every other part is one escaped byte.
  const parts = text.split(/([\udc80-\udcff])/u);
  return Buffer.concat(parts.map((part, place) => (place % 2 === 0 ? Buffer.from(part) : escapedByte(part))));
}

function escapedByte(surrogate: string): Buffer {
  return Buffer.of(surrogate.charCodeAt(0) - 0xdc00);
}

/** Decodes `\ooo`, as the kernel writes space, tab, newline, backslash and #. `bytes`: one for each character. */
export function decodeOctal(bytes: string): string {
  if (/^[\x00-\x5b\x5d-\x7f]*$/.test(bytes)) return bytes;
  const plain = bytes.replace(/\\([0-3][0-7]{2})/g, (_match, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return pathText(Buffer.from(plain, 'latin1'));
}

/** The name for people and for JSON; another name may be told alike. */
export function tellablePath(text: string): string {
  return text.replace(/[\udc80-\udcff]/gu, '\ufffd');
}
