// The lists of qga/README.md say what the tests of this folder find. `npm run compatibility-table` writes them anew.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { optionForms } from '../../src/cli/agent/option-table.js';
import { commandNames } from '../../src/qga/commands.js';
import { withTable } from './table.js';

const readme = readFileSync(new URL('../../qga/README.md', import.meta.url), 'utf8');

test('the lists in qga/README.md are not stale', () => {
  expect(readme).toBe(withTable(readme));
});

test('every command and every option of ours is in them', () => {
  for (const name of commandNames) expect(readme).toContain(`\n- \`${name}\`: `);
  const silent = new Set(['help', 'version', 'dump-conf', 'verbose', 'blacklist']);
  for (const { long, short } of optionForms) {
    if (!silent.has(long)) expect(readme).toContain(`\n- \`${short === undefined ? `--${long}` : `-${short}`}\`: `);
  }
});
