// What is kept and shown of what writers print.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { mkdtempSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { FLOOD_BYTES, harmlessLine, WriterOutput } from '../../../../src/freeze/writers/output.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-output-'));
});
afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});

test.each([
  ['plain text, with umlauts: äöü 漢字 🙂', 'plain text, with umlauts: äöü 漢字 🙂'],
  ['a\tb', 'a b'],
  ['\u001b[2J\u001b]0;x\u0007', '\\u{1b}[2J\\u{1b}]0;x\\u{7}'],
  ['\u009b31m', '\\u{9b}31m'],
  ['one\rtwo\u2028three', 'one\\u{d}two\\u{2028}three'],
  ['\u202eabc', '\\u{202e}abc'],
  ['x'.repeat(501), 'x'.repeat(500)],
  ['\u0007'.repeat(500), '\\u{7}'.repeat(100)],
])('%j is shown as %j', (text, shown) => {
  expect(harmlessLine(text)).toBe(shown);
});

test('the first line of stderr, else of stdout, whatever follows', () => {
  const output = new WriterOutput(dir, 'w.freeze');
  expect(output.firstLine()).toBeUndefined();
  writeSync(output.out ?? NaN, '\n  said aloud \nmore\n');
  expect(output.firstLine()).toBe('said aloud');
  writeSync(output.err, 'wrong\n');
  expect(output.firstLine()).toBe('wrong');
  writeSync(output.err, 'x'.repeat(100_000));
  expect(output.keepSmall()).toBe(false);
  expect(statSync(join(dir, 'w.freeze.err')).size).toBe(0);
  expect(output.firstLine()).toBe('wrong');
  output.close();
});

test('a flood is one when it is too much together', () => {
  const output = new WriterOutput(dir, 'w.freeze');
  const much = 'x'.repeat(FLOOD_BYTES / 4);
  const floods = [1, 2, 3, 4, 5].map(() => {
    writeSync(output.out ?? NaN, much);
    return output.keepSmall();
  });
  expect(floods).toEqual([false, false, false, false, true]);
  output.close();
});

test('a second run begins anew, and none fails for want of a place', () => {
  const first = new WriterOutput(dir, 'w.verify');
  writeSync(first.err, 'of the first\n');
  const second = new WriterOutput(dir, 'w.verify');
  expect(second.firstLine()).toBeUndefined();
  first.close();
  second.close();
  writeFileSync(join(dir, 'file'), '');
  const nowhere = new WriterOutput(join(dir, 'file'), 'w.thaw');
  writeSync(nowhere.err, 'lost\n');
  expect([nowhere.keepSmall(), nowhere.firstLine()]).toEqual([false, undefined]);
  nowhere.close();
});
