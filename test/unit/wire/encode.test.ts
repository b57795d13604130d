import { describe, expect, test } from 'vitest';
import { encode, encodeLine } from '../../../src/wire/encode.js';
import { MessageParser } from '../../../src/wire/message-parser.js';
import { JsonFloat } from '../../../src/wire/value.js';

describe('encode', () => {
  test('writes as QEMU does', () => {
    expect(encode({ return: { a: [1, true, null, 'x'], b: {} }, id: [] })).toBe(
      '{"return": {"a": [1, true, null, "x"], "b": {}}, "id": []}',
    );
  });

  test.each([
    ['é€', '"\\u00E9\\u20AC"'],
    ['\u{1F600}', '"\\uD83D\\uDE00"'],
    ['\0\x1f\x7f', '"\\u0000\\u001F\\u007F"'],
    ['"\\\b\f\n\r\t/\'', '"\\"\\\\\\b\\f\\n\\r\\t/\'"'],
    ['a\ud800b', '"a\\uFFFDb"'],
    ['\udc00\ud800', '"\\uFFFD\\uFFFD"'],
  ])('escapes %j', (text, expected) => {
    expect(encode(text)).toBe(expected);
  });

  test.each([
    [9223372036854775807n, '9223372036854775807'],
    [0.1, '0.1'],
    [new JsonFloat(0.1), '0.10000000000000001'],
    [new JsonFloat(1), '1'],
    [new JsonFloat(-0), '-0'],
    [new JsonFloat(1e17), '1e+17'],
    [new JsonFloat(1e16), '10000000000000000'],
    [new JsonFloat(1e-5), '1.0000000000000001e-05'],
    [new JsonFloat(-0.0001), '-0.0001'],
    [new JsonFloat(-Infinity), '-1e999'],
  ])('writes the number %s', (value, expected) => {
    expect(encode(value)).toBe(expected);
  });

  test('leaves out members that are undefined', () => {
    expect(encode({ a: undefined, b: 1 })).toBe('{"b": 1}');
  });

  test.each([NaN, Infinity, undefined, [undefined], () => 1, Symbol('x'), new JsonFloat(NaN)])(
    'refuses what JSON cannot say',
    (value) => {
      expect(() => encode(value)).toThrow(TypeError);
    },
  );

  test('is read back by the parser', () => {
    const value = { text: 'é\u{1F600}\0"\\', list: [1, -5n, 2n ** 63n - 1n, null, false], nested: { a: {} } };
    const [message] = new MessageParser().feed(encodeLine(value));
    expect(message).toMatchObject({ kind: 'value', value: { ...value, list: [1, -5, 2n ** 63n - 1n, null, false] } });
  });

  test('is read back where a long text is escaped in pieces', () => {
    for (let before = 16_382; before < 16_386; before++) {
      const value = 'x'.repeat(before) + '\u{1F600}"\n'.repeat(6000);
      expect(JSON.parse(encode(value))).toBe(value);
    }
  });

  test('ends a line, and precedes a delimited one with 0xFF', () => {
    expect([...encodeLine(1)]).toEqual([0x31, 0x0a]);
    expect([...encodeLine(1, true)]).toEqual([0xff, 0x31, 0x0a]);
  });
});
