// Cutting bytes into messages: recovery, limits, and time linear in the input however it arrives. That the texts are
// the real agent's is test/conformance's business.
import { describe, expect, test } from 'vitest';
import { MessageParser, qemuLimits, type WireLimits } from '../../../src/wire/message-parser.js';
import { JsonFloat, withPlainNumbers } from '../../../src/wire/value.js';

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1');

function parse(text: string, limits?: WireLimits): unknown[] {
  return new MessageParser(limits)
    .feed(bytes(text))
    .map((message) => (message.kind !== 'value' ? message.desc : message.value));
}

describe('messages', () => {
  test('end with their last bracket, not with a newline', () => {
    const parser = new MessageParser();
    expect(parser.feed(bytes('{"a":\n[1'))).toEqual([]);
    expect(parser.feed(bytes(']}'))).toMatchObject([{ kind: 'value', value: { a: [1] } }]);
  });

  test('that are numbers or keywords end with the byte after them', () => {
    const parser = new MessageParser();
    expect(parser.feed(bytes('12'))).toEqual([]);
    expect(parser.feed(bytes('3 '))).toMatchObject([{ value: 123 }]);
  });

  test('are the same fed whole and byte by byte', () => {
    const text = `{"a": "\\u00e9\xc3\xa9'", 'b': [1, -2.5e3, null]}\xff{"c": 01}\t[true]}"\\ud83d\\ude00"`;
    const parser = new MessageParser();
    const single = Array.from(text).flatMap((byte) => parser.feed(bytes(byte)));
    expect(single).toEqual(new MessageParser().feed(bytes(text)));
    expect(single.length).toBeGreaterThan(5);
  });

  test('survive a chunk whose memory is used again', () => {
    const parser = new MessageParser();
    const chunk = bytes('"abc');
    parser.feed(chunk);
    chunk.fill(0x7a);
    expect(parser.feed(bytes('d"'))).toMatchObject([{ value: 'abcd' }]);
  });

  test('after 0xFF are read afresh', () => {
    expect(parse('{"half": [1, "\xff{"whole": 1}')).toEqual([`JSON parse error, stray '"\uFFFD'`, { whole: 1 }]);
  });

  test('say about how much memory they take', () => {
    const sizeOf = (text: string): number => new MessageParser().feed(bytes(text))[0]?.bytes ?? 0;
    expect(sizeOf('[1, 2]')).toBeGreaterThan(200);
    expect(sizeOf(`"${'x'.repeat(1000)}"`)).toBeGreaterThan(2000);
    expect(sizeOf(`?${'x'.repeat(1000)}`)).toBeGreaterThan(100);
    expect(sizeOf(`"${'x'.repeat(1000)}\xff`)).toBeGreaterThan(2000);
  });
});

describe('numbers', () => {
  test.each([
    ['9007199254740991', 9007199254740991],
    ['9007199254740993', 9007199254740993n],
    ['-9223372036854775808', -9223372036854775808n],
    ['18446744073709551615', 18446744073709551615n],
    ['-0', 0],
  ])('%s is exact', (text, value) => {
    expect(parse(`${text} `)).toEqual([value]);
  });

  test.each(['1.0', '1e2', '18446744073709551616', '-9223372036854775809', '9'.repeat(400)])(
    '%s is no integer',
    (text) => {
      expect(parse(`${text} `)).toEqual([new JsonFloat(Number(text))]);
    },
  );

  test('are plain for schemas that ask for it', () => {
    const [value] = new MessageParser().feed(bytes('{"a": [1.5, {"b": 2}], "c": null}'));
    expect(value?.kind === 'value' && withPlainNumbers(value.value)).toEqual({ a: [1.5, { b: 2 }], c: null });
  });
});

describe('member names', () => {
  test('of the prototype are plain members', () => {
    const [value] = parse('{"__proto__": {"polluted": 1}, "toString": 2}');
    expect(Object.entries(value as object)).toEqual([
      ['__proto__', { polluted: 1 }],
      ['toString', 2],
    ]);
    expect(Object.getPrototypeOf(value)).toBeNull();
  });

  test('may not come twice', () => {
    expect(parse('{"a": 1, "a": 2}')).toEqual(['JSON parse error, duplicate key']);
  });
});

describe('limits', () => {
  const small: WireLimits = { tokenBytes: 16, tokens: 8, nesting: 4, valueBytes: Infinity };

  test('on the bytes of one token', () => {
    expect(parse(`"${'x'.repeat(20)}`, small)[0]).toBe('JSON token size limit exceeded');
  });

  test('on the bytes of all tokens of a message, white space apart', () => {
    expect(parse('["abcdef", "abcdef"]', small)[0]).toBe('JSON token size limit exceeded');
    expect(parse(`["abc",${' '.repeat(100)}"abc"]`, small)).toEqual([['abc', 'abc']]);
  });

  test('on tokens', () => {
    expect(parse('[1,2,3,4,5]', small)[0]).toBe('JSON token count limit exceeded');
    expect(parse('[1,2,3]', small)).toEqual([[1, 2, 3]]);
  });

  test('on nesting', () => {
    expect(parse('[[[[1]]]]', small)).toHaveLength(1);
    expect(parse('[[[[[', small)).toEqual(['JSON nesting depth limit exceeded']);
  });

  test('count anew with each message', () => {
    expect(parse('[1][2][3][4][5][6]', small)).toHaveLength(6);
  });

  describe('on the memory of a value', () => {
    const tight: WireLimits = { ...qemuLimits, valueBytes: 1000 };
    const tooLarge = { kind: 'oversize', desc: 'JSON value too large: expected at most 1000 bytes of memory' };

    test('let its content go, and say whether it was an object', () => {
      const feed = (text: string) => new MessageParser(tight).feed(bytes(text));
      expect(feed('[1, 2, 3]')).toMatchObject([{ kind: 'value' }]);
      expect(feed('[[[[]], []], [], []]')).toMatchObject([{ ...tooLarge, isObject: false }]);
      expect(feed('{"a": [[], []], "b": {"c": {}}, "d": 1}{}')).toMatchObject([
        { ...tooLarge, isObject: true },
        { kind: 'value', value: {} },
      ]);
      expect(feed(`{"a": "${'x'.repeat(400)}"}1 `)).toMatchObject([tooLarge, { value: 1 }]);
    });

    test('still read it to its end for what is no JSON', () => {
      expect(parse('[[[[[[[],]]]]]]', tight)).toEqual(['JSON parse error, expecting value']);
      expect(parse('{"a": [[],[],[],[],[]], "b": }', tight)).toEqual(['JSON parse error, expecting value']);
    });

    test('hold also for a token that is longer than all of it, in one piece or in many', () => {
      const text = bytes(`{"a": "${'x'.repeat(5000)}"}`);
      expect(new MessageParser(tight).feed(text)).toMatchObject([tooLarge]);
      const parser = new MessageParser(tight);
      expect([...text].flatMap((byte) => parser.feed(Uint8Array.of(byte)))).toMatchObject([tooLarge]);
      const [stray] = new MessageParser(tight).feed(bytes(`"${'y'.repeat(5000)}\xff`));
      expect(stray).toMatchObject({ desc: `JSON parse error, stray '"${'y'.repeat(999)}'` });
    });
  });

  test('by default are the real agent’s', () => {
    expect(qemuLimits).toEqual({ tokenBytes: 67108864, tokens: 2097152, nesting: 1024, valueBytes: Infinity });
  });
});

describe('time', () => {
  // Quadratic work on these would take minutes.
  test('is linear for one long string in small pieces', () => {
    const parser = new MessageParser();
    const piece = bytes('x'.repeat(61));
    parser.feed(bytes('"'));
    for (let sent = 0; sent < 8 * 1024 * 1024; sent += piece.length) parser.feed(piece);
    expect(parser.feed(bytes('"'))).toHaveLength(1);
  });

  test('is linear for byte by byte', () => {
    const parser = new MessageParser();
    const one = bytes('1');
    for (let sent = 0; sent < 1024 * 1024; sent++) parser.feed(one);
    expect(parser.feed(bytes(' '))).toMatchObject([{ value: { value: Infinity } }]);
  });

  test('is linear for a long unfinished list and for endless garbage', () => {
    const parser = new MessageParser();
    parser.feed(bytes('['));
    const piece = bytes('1,'.repeat(1000));
    for (let round = 0; round < 1000; round++) expect(parser.feed(piece)).toEqual([]);
    expect(new MessageParser().feed(bytes('\xff'.repeat(300_000)))).toHaveLength(300_000);
  });

  test('is linear for a long string of escapes and many-byte characters', () => {
    const [message] = new MessageParser().feed(bytes(`"${'\\u00e9\xe2\x82\xac\xf0\x9f\x98\x80'.repeat(200_000)}"`));
    expect(message?.kind === 'value' && (message.value as string).length).toBe(800_000);
  });
});
