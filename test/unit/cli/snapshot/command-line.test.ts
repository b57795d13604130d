import { describe, expect, test, vi } from 'vitest';
import { readCommandLine } from '../../../../src/cli/snapshot/command-line.js';
import { exitCodes } from '../../../../src/cli/snapshot/exit-codes.js';
import { runSnapshot } from '../../../../src/cli/snapshot/run.js';
import { PACKAGE_VERSION } from '../../../../src/version.js';

const usual = { json: false, config: undefined };

describe('the command line', () => {
  test('lists without a word more', () => {
    expect(readCommandLine(['writers'])).toEqual({ kind: 'list', ...usual });
    expect(readCommandLine(['writers', 'list', '--json'])).toEqual({ kind: 'list', ...usual, json: true });
  });

  test('takes options before and after the operand', () => {
    const asked = { kind: 'test', name: 'app', holdMs: 1500, json: true, config: '/x' };
    expect(readCommandLine(['writers', 'test', '--hold', '1.5', 'app', '--json', '-c', '/x'])).toEqual(asked);
    expect(readCommandLine(['--json', '--config=/x', 'writers', 'test', 'app', '--hold=1.5'])).toEqual(asked);
    expect(readCommandLine(['writers', 'lint', 'f', '--as', '/d'])).toEqual({
      kind: 'lint',
      file: 'f',
      as: '/d',
      ...usual,
    });
  });

  test.each([
    [['bla'], "expected the command writers, found 'bla'"],
    [[], 'expected a command: writers'],
    [['writers', 'bla'], "writers: expected one of list, test, lint, found 'bla'"],
    [['writers', 'test'], 'writers test: expected one NAME, found 0'],
    [['writers', 'lint', 'a', 'b'], 'writers lint: expected one FILE, found 2'],
    [['writers', 'list', 'a'], "writers list: expected no operand, found 'a'"],
    [['writers', 'test', 'a', '--hold', '61'], "--hold: expected seconds from 0 to 60, found '61'"],
    [['writers', 'test', 'a', '--hold', 'x'], "--hold: expected seconds from 0 to 60, found 'x'"],
    [['writers', 'list', '--hold', '1'], '--hold is an option of writers test'],
    [['writers', 'test', 'a', '--as', '/d'], '--as is an option of writers lint'],
    [['writers', '--bla'], "Unknown option '--bla'"],
  ])('%j is refused', (words, message) => {
    expect(() => readCommandLine(words)).toThrow(`${message} (see --help)`);
  });
});

async function run(...words: readonly string[]) {
  let stdout = '';
  let stderr = '';
  const streams = { stdout: (text: string) => (stdout += text), stderr: (text: string) => (stderr += text) };
  return { code: await runSnapshot(words, streams, new AbortController().signal), stdout, stderr };
}

describe('fsfreeze-snapshot', () => {
  test('has help with examples and exit codes for each command', async () => {
    for (const words of [[], ['writers', 'list'], ['writers', 'test'], ['writers', 'lint']]) {
      const { code, stdout } = await run(...words, '--help');
      expect([code, stdout]).toEqual([0, expect.stringMatching(/^usage: fsfreeze-snapshot [^]*\nExamples:\n {2}fsf/)]);
      for (const exit of Object.keys(exitCodes)) expect(stdout).toMatch(new RegExp(`^ +${exit}  `, 'm'));
    }
    expect(await run('-V')).toEqual({ code: 0, stdout: `fsfreeze-snapshot ${PACKAGE_VERSION}\n`, stderr: '' });
  });

  test('ends with 64 for a wrong call, and with 69 for what is not there', async () => {
    expect(await run('writers', 'bla', '--json')).toMatchObject({ code: 64 });
    const { code, stdout, stderr } = await run('writers', 'lint', '/nowhere/hook', '--json');
    expect(code).toBe(69);
    expect(stderr).toMatch(/^fsfreeze-snapshot: cannot read it: ENOENT/);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'E_NO_WRITER', exitCode: 69 } });
    expect(await run('writers', '-c', '/nowhere/conf')).toMatchObject({ code: 64 });
  });

  test('runs writers for root alone', async () => {
    const euid = vi.spyOn(process, 'geteuid').mockReturnValue(1000);
    try {
      expect(await run('writers', 'test', 'app')).toMatchObject({
        code: 69,
        stderr: 'fsfreeze-snapshot: only root can run a writer: try sudo\n',
      });
    } finally {
      euid.mockRestore();
    }
  });
});
