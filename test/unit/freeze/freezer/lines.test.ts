// The freezer's lines, as text and back.
import { expect, test } from 'vitest';
import { freezerText, freezerWord, parseFreezerLine } from '../../../../src/freeze/freezer/lines.js';

test.each(['', ' ', '/a b', 'tab\tnewline\n', 'back\\slash', 'é\u{1f600}', '\\', '~!'])(
  '%j goes there and back',
  (text) => {
    const word = freezerWord(text);
    expect(word).toMatch(/^[\x21-\x7e]+$/);
    expect(freezerText(word)).toBe(text);
  },
);

test('each kind', () => {
  expect(parseFreezerLine('ok freeze 2 1000000 9000000')).toEqual({
    kind: 'ok',
    verb: 'freeze',
    words: ['2', '1000000', '9000000'],
  });
  expect(parseFreezerLine('error busy host\\040tool 12 0 held\\040by')).toEqual({
    kind: 'error',
    code: 'busy',
    words: ['host\\040tool', '12', '0'],
    text: 'held by',
  });
  expect(parseFreezerLine('event expired 1 2')).toEqual({ kind: 'event', name: 'expired' });
  expect(parseFreezerLine('fs 3 thaw 22 1500000 2500000 1')).toEqual({
    kind: 'filesystem',
    answer: { index: 3, verb: 'thaw', errno: 22, startMs: 1.5, endMs: 2.5, ours: true },
  });
});

test.each(['', 'ok', 'fs 1 thaw', 'fs x freeze 0 1 2', 'fs 1 melt 0 1 2', 'hello world'])('%j is none', (line) => {
  expect(parseFreezerLine(line)).toBeUndefined();
});
