import { describe, expect, test } from 'vitest';
import { decodeLossy, decodeString } from '../../../src/wire/text.js';

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');

describe('decodeString', () => {
  test.each([
    ['"plain"', 'plain'],
    [`'it\\'s "so"'`, `it's "so"`],
    ['"\\u0041\\/\\n"', 'A/\n'],
    ['"\\ud83d\\ude00"', '\u{1F600}'],
    ['"\xf0\x9f\x98\x80"', '\u{1F600}'],
    ['"\xc0\x80"', '\0'],
  ])('%j', (token, text) => {
    expect(decodeString(bytes(token))).toEqual({ text });
  });

  test.each([
    ['"\\x"', 'invalid escape sequence in string'],
    ['"\xc3"', 'invalid UTF-8 sequence in string'],
    ['"\xed\xa0\x80"', 'invalid UTF-8 sequence in string'],
    ['"\xc0\x81"', 'invalid UTF-8 sequence in string'],
    ['"\\ud800"', '\\ud800 is not a valid Unicode character'],
    ['"\\ud800\\u0041"', '\\ud800 is not a valid Unicode character'],
    ['"\\uffff"', '\\uffff is not a valid Unicode character'],
    ['"\\u1"', '\\u1" is not a valid Unicode character'],
  ])('%j is refused', (token, problem) => {
    expect(decodeString(bytes(token))).toEqual({ problem });
  });
});

test('decodeLossy replaces each broken sequence once', () => {
  expect(decodeLossy(bytes('a\xff\xe2\x82b\xf0\x9f\x98\x80\x80'))).toBe('a\uFFFD\uFFFDb\u{1F600}\uFFFD');
});
