// The table of qga/README.md says what the tests of this folder find. `npm run compatibility-table` writes it anew.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { optionForms } from '../../src/cli/agent/option-table.js';
import { commandNames } from '../../src/qga/commands.js';
import { withTable } from './table.js';

const readme = readFileSync(new URL('../../qga/README.md', import.meta.url), 'utf8');

test('the table in qga/README.md is not stale', () => {
  expect(readme).toBe(withTable(readme));
});

test('every command and every option of ours is in it', () => {
  for (const name of commandNames) expect(readme).toContain(`| \`${name}\``);
  const silent = new Set(['help', 'version', 'dump-conf', 'verbose', 'blacklist']);
  for (const { long, short } of optionForms) {
    if (!silent.has(long)) expect(readme).toContain(`| \`${short === undefined ? `--${long}` : `-${short}`}\``);
  }
});
