// What `backup verify` refuses before it looks at any repository.
import { expect, test } from 'vitest';
import { runTool } from '../../../support/run-tool.js';

const verify = async (...words: readonly string[]) =>
  await runTool(['backup', 'verify', '--repo', '/nonesuch', '--json', ...words]);

test.each([
  ['an expectation without its command', ['--expect', 'x'], 'E_USAGE', 'one --expect for each --run'],
  [
    'fewer expectations than commands',
    ['--run', 'a', '--run', 'b', '--expect', 'x'],
    'E_USAGE',
    '2 --run and 1 --expect',
  ],
  ['an expectation that is no pattern', ['--run', 'x', '--expect', '('], 'E_USAGE', 'regular expression'],
  ['memory that is no size', ['--memory', 'much'], 'E_LIMIT', '--memory'],
  ['no processor', ['--cpus', '0'], 'E_LIMIT', '--cpus'],
  ['no time to boot', ['--boot-timeout', '0'], 'E_LIMIT', '--boot-timeout'],
  ['no time for checks', ['--check-timeout', 'x'], 'E_LIMIT', '--check-timeout'],
])('a boot test with %s', async (_what, words, code, text) => {
  const refused = await verify('latest', '--boot', ...words);
  expect(refused).toMatchObject({ code: 2, error: { code } });
  expect(refused.error.message).toContain(text);
});

test.each([
  ['--boot', 'which runs?'],
  ['--no-sums', 'nothing else would be done'],
  ['--run=true', 'expected with --boot only'],
])('%s alone', async (word, text) => {
  const refused = await verify(word);
  expect(refused).toMatchObject({ code: 2, error: { code: 'E_USAGE' } });
  expect(refused.error.message).toContain(text);
});

test('what is well said is looked for', async () => {
  const given = ['--run', 'a', '--expect', 'x', '--run', 'b', '--expect', 'y', '--qemu-arg=-cpu', '--qemu-arg=max'];
  const found = await verify('latest', '--boot', '--memory', '2G', '--ignore-mount', '/mnt', ...given);
  expect(found).toMatchObject({ code: 2, error: { code: 'E_REPOSITORY' } });
});
