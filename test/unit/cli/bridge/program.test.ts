import { describe, expect, test } from 'vitest';
import { exitCodeOf, exitCodes } from '../../../../src/cli/bridge/exit-codes.js';
import { runBridge } from '../../../../src/cli/bridge/program.js';
import {
  CutError,
  DeadlineError,
  QuiesceError,
  StateError,
  ThawUnconfirmedError,
  UnreachableError,
  UsageError,
} from '../../../../src/errors.js';
import { QmpError } from '../../../../src/qmp/errors.js';

async function run(...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const streams = {
    stdout: (text: string) => {
      stdout += text;
    },
    stderr: (text: string) => {
      stderr += text;
    },
  };
  return { code: await runBridge(words, streams, new AbortController().signal), stdout, stderr };
}

describe('exit codes', () => {
  test.each([
    [new UsageError('E_USAGE', ''), 2],
    [new UnreachableError('E_CLOSED', ''), 3],
    [new DeadlineError('x', 1), 3],
    [new QuiesceError('E_QUIESCE', ''), 4],
    [new StateError('x', 'a', ['b']), 4],
    [new CutError('E_CUT', ''), 5],
    [new QmpError('x', 'GenericError', ''), 5],
    [new ThawUnconfirmedError('E_THAW_UNCONFIRMED', ''), 6],
    [new Error('bug'), 1],
    ['no error', 1],
  ])('%s ends with %i', (error, code) => {
    expect(exitCodeOf(error)).toBe(code);
  });

  test('are one table, each once, in order', () => {
    expect(exitCodes.map(({ code }) => code)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });
});

describe('the command line', () => {
  test.each([
    ['--qmp', 'status', '--qmp', '/a', '--qmp', '/b'],
    ['--state-dir', 'snapshot', 'list', '--vm', 'x', '--state-dir', '/a', '--state-dir', '/b'],
    ['--monitor-timeout', 'status', '--vm', 'x', '--monitor-timeout', '1', '--monitor-timeout', '2'],
  ])('refuses %s given twice', async (option, ...words) => {
    const { code, stderr } = await run(...words);
    expect(code).toBe(2);
    expect(stderr).toContain(`${option} is given more than once`);
  });

  test('refuses an empty path: a variable that is not set is not the current folder', async () => {
    const { code, stderr } = await run('status', '--qmp', '');
    expect(code).toBe(2);
    expect(stderr).toContain('expected a path, found nothing');
  });

  test.each([
    [[], 'which command?'],
    [['snapshot'], 'snapshot needs a command'],
    [['snapsot'], 'Did you mean snapshot?'],
    [['snapshot', 'show', '--qmp', '/q'], 'Not enough non-option arguments'],
    [['snapshot', 'create', '--qmp', '/q', '--requier', 'crash'], 'requier'],
    [['snapshot', 'create', '--qmp', '/q', '--require', 'best'], 'Invalid values'],
    [['snapshot', 'create'], 'which VM?'],
    [['snapshot', 'create', '--qmp', '/q', '--lease', '0'], '--lease: expected seconds above 0'],
    [['snapshot', 'create', '--qmp', '/q', '--lease', 'soon'], '--lease: expected seconds above 0'],
    ...['0', '-1', '', 'fast', 'Infinity', '1e13'].map((limit): [string[], string] => [
      ['backup', 'run', '--qmp', '/q', '--to', '/r', `--limit=${limit}`],
      '--limit: expected MiB per second above 0 (at most 2^32), "auto" or "none"',
    ]),
    [['writers', '--qmp', '/q'], 'no guest-agent socket'],
    [['backup', 'verify', '--repo', '/r', '--boot=latest'], '--boot=latest: this option takes no value'],
    [['backup', 'verify', 'latest', '--repo', '/r', '--sums=no'], '--sums=no: this option takes no value'],
    [['snapshot', 'commit', 's1', '--qmp', '/q', '-y=no'], '-y=no: this option takes no value'],
    // As yargs says it is.
    [['backup', 'verify', '--repo', '/r', '--boot=true'], 'which runs?'],
  ])('%j is a usage error in one line', async (words, message) => {
    const { code, stderr, stdout } = await run(...words);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(stdout).toBe('');
  });

  test('says the same as one JSON object', async () => {
    const { code, stdout } = await run('snapshot', 'create', '--json');
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'E_NO_VM', exitCode: 2 } });
    const usage = await run('snapshot', 'create', '--json', '--nonsense');
    expect(JSON.parse(usage.stdout)).toMatchObject({ error: { code: 'E_USAGE' } });
  });

  test('reaches for the sockets it was given', async () => {
    expect(await run('snapshot', 'create', '--qmp', '/nonexistent/qmp.sock')).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('there is no such socket') as string,
    });
    expect(await run('status', '--qmp', '/nonexistent/qmp.sock')).toMatchObject({ code: 3 });
    expect(await run('wait', '--qmp', '/q', '--qga', '/nonexistent/qga.sock', '--timeout', '0.1')).toMatchObject({
      code: 3,
    });
  });
});
