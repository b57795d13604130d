// One list of codes: each is used, none stands in two groups, and each has a meaning of one line.
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { guestCodes, hostCodes, testingCodes } from '../../src/error-codes.js';

const groups: readonly Readonly<Record<string, string>>[] = [hostCodes, guestCodes, testingCodes];
const codes = groups.flatMap((group) => Object.keys(group));

test('a code stands in one group', () => {
  expect(codes.filter((code, index) => codes.indexOf(code) !== index)).toEqual([]);
});

test('no two codes have the same meaning', () => {
  const meanings = groups.flatMap((group) => Object.values(group));
  expect(meanings.filter((meaning, index) => meanings.indexOf(meaning) !== index)).toEqual([]);
  for (const meaning of meanings) expect(meaning).toMatch(/^[^\n.|]+$/);
});

test('every code is thrown somewhere', () => {
  const root = fileURLToPath(new URL('../../src/', import.meta.url));
  const sources = readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && name !== 'error-codes.ts')
    .map((name) => readFileSync(root + name, 'utf8'))
    .join('\n');
  expect(codes.filter((code) => !sources.includes(`'${code}'`))).toEqual([]);
});
