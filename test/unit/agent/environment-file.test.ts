import { expect, test } from 'vitest';
import { parseEnvironmentFile, splitWords } from '../../../src/agent/environment-file.js';
import { UsageError } from '../../../src/errors.js';

const values = (text: string) =>
  Object.fromEntries(parseEnvironmentFile(text, 'f').assignments.map(({ key, value }) => [key, value]));

test.each([
  ['A=b', { A: 'b' }],
  ['# A=b\n; A=c\n\n  B = c\nA=d', { A: 'd' }],
  ['export A=b', { A: 'b' }],
  ['A="b c" # why', { A: 'b c' }],
  ['A=b c  ', { A: 'b c' }],
  ["A='b $c'", { A: 'b $c' }],
  ['A="b \\"c\\" \\d"', { A: 'b "c" \\d' }],
  ['A="b \\\nc"', { A: 'b c' }],
  ['A=b \\\n  c\nB=d', { A: 'b   c', B: 'd' }],
  ['A=\nB=""', { A: '', B: '' }],
  ['A=a#b', { A: 'a#b' }],
  ['A="b"c', { A: 'bc' }],
])('reads %j', (text, expected) => {
  expect(values(text)).toEqual(expected);
});

test('tells lines that assign nothing, and where', () => {
  expect(parseEnvironmentFile('A=b\n\nsleep 1\nA+=c\n', 'f').others).toEqual([
    { line: 3, text: 'sleep 1' },
    { line: 4, text: 'A+=c' },
  ]);
});

test.each([
  ['A=$B', true],
  ['A="$(b)"', true],
  ['A=`b`', true],
  ["A='$B'", false],
  ['A=\\$B', false],
])('knows what a shell would replace: %j', (text, expands) => {
  expect(parseEnvironmentFile(text, 'f').assignments).toMatchObject([{ key: 'A', expands }]);
});

test('names the line of a quote that is never closed', () => {
  const parse = () => parseEnvironmentFile('A=b\nB="c\nD=e\n', '/etc/default/x');
  expect(parse).toThrow(UsageError);
  expect(parse).toThrow('/etc/default/x:2: B: expected a closing quote, found none');
});

test.each([
  ['-b a,b  -v', ['-b', 'a,b', '-v']],
  ['--fsfreeze-hook="/a b/c" -l\'/d\'', ['--fsfreeze-hook=/a b/c', '-l/d']],
  ['', []],
])('splits %j into words', (value, words) => {
  expect(splitWords(value)).toEqual(words);
});
