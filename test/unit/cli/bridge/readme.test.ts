// The README's table of exit codes is the program's own.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { exitCodes } from '../../../../src/cli/bridge/exit-codes.js';

test('the README lists every exit code as the program has it, and no other', () => {
  const readme = readFileSync(new URL('../../../../README.md', import.meta.url), 'utf8');
  const rows = [...readme.matchAll(/^\| (\d+) +\| (.+?) +\|$/gm)].map(([, code, meaning]) => ({
    code: Number(code),
    meaning,
  }));
  expect(rows).toEqual(exitCodes.map(({ code, meaning }) => ({ code, meaning })));
});
