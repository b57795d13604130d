import { describe, expect, test } from 'vitest';
import { printable, printableJson, printableLine } from '../../src/printable.js';

const hostile = 'a\u001b[2J\u001b]0;title\u0007\u009b31m\u202egnp.exe\u2066b\rc';

describe('printable', () => {
  test('shows what a terminal would act on', () => {
    expect(printable(hostile)).toBe('a\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{9b}31m\\u{202e}gnp.exe\\u{2066}b\\u{d}c');
    expect(printable('plain é 日本\n\ttext')).toBe('plain é 日本\n\ttext');
  });

  test('makes one line of many', () => {
    expect(printableLine('one\r\n  two\tthree\n')).toBe('one two three');
  });

  test('keeps JSON readable by programs, and harmless', () => {
    const json = printableJson({ text: hostile });
    expect(JSON.parse(json)).toEqual({ text: hostile });
    expect(json).toMatch(/^[\u0020-\u007e]*$/);
  });
});
