import { describe, expect, test } from 'vitest';
import { MessageSplitter } from '../../../src/qmp/message-splitter.js';

const split = (text: string, chunk = text.length, limit = 1000): string[] => {
  const splitter = new MessageSplitter(limit);
  const bytes = Buffer.from(text);
  const messages: string[] = [];
  for (let at = 0; at < bytes.length; at += chunk) messages.push(...splitter.append(bytes.subarray(at, at + chunk)));
  return messages;
};

describe('MessageSplitter', () => {
  const stream = '{"a": "}\\"{ é"}\r\n{"b": [1, {"c": {}}]}\r\n{\n  "pretty": true\n}\n';

  test.each([1, 2, 3, 7, 1000])('finds the same messages in chunks of %i bytes', (chunk) => {
    expect(split(stream, chunk).map((text) => JSON.parse(text) as unknown)).toEqual([
      { a: '}"{ é' },
      { b: [1, { c: {} }] },
      { pretty: true },
    ]);
  });

  test('keeps an unfinished message for later', () => {
    const splitter = new MessageSplitter(100);
    expect(splitter.append(Buffer.from('{"a": '))).toEqual([]);
    expect(splitter.append(Buffer.from('1}{"b"'))).toEqual(['{"a": 1}']);
    expect(splitter.append(Buffer.from(': 2}'))).toEqual(['{"b": 2}']);
  });

  test('refuses a message longer than its limit, however it arrives', () => {
    const long = `{"a": "${'x'.repeat(2000)}"}`;
    expect(() => split(long)).toThrow('longer than 1000 bytes');
    expect(() => split(long, 10)).toThrow('longer than 1000 bytes');
    // Not even finished.
    expect(() => split(long.slice(0, -2), 10)).toThrow('longer than 1000 bytes');
  });

  test('refuses what is nested without end', () => {
    expect(() => split('{"a":' + '['.repeat(2000), 100, 10_000)).toThrow('nested deeper than 1024');
  });

  test('refuses what is no object, and quotes it safely', () => {
    expect(() => split('QEMU 7.2.22 monitor')).toThrow('found "QEMU 7.2.22 monitor"');
    expect(() => split('\u001b[2J{}')).toThrow('found "\\u001b[2J{}"');
    expect(() => split('[1]')).toThrow('expected a JSON object');
  });
});
