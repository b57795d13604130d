import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { readCommandLine } from '../../../../src/cli/snapshot/command-line.js';
import { exitCodes } from '../../../../src/cli/snapshot/exit-codes.js';
import { runSnapshot } from '../../../../src/cli/snapshot/run.js';
import { PACKAGE_VERSION } from '../../../../src/version.js';

const usual = { json: false, config: undefined };

describe('the command line', () => {
  test('lists without a word more', () => {
    expect(readCommandLine(['writers'])).toEqual({ kind: 'writers list', ...usual });
    expect(readCommandLine(['writers', 'list', '--json'])).toEqual({ kind: 'writers list', ...usual, json: true });
  });

  test('takes options before and after the operand', () => {
    const asked = { kind: 'writers test', name: 'app', holdMs: 1500, json: true, config: '/x' };
    expect(readCommandLine(['writers', 'test', '--hold', '1.5', 'app', '--json', '-c', '/x'])).toEqual(asked);
    expect(readCommandLine(['--json', '--config=/x', 'writers', 'test', 'app', '--hold=1.5'])).toEqual(asked);
    expect(readCommandLine(['writers', 'lint', 'f', '--as', '/d'])).toEqual({
      kind: 'writers lint',
      file: 'f',
      as: '/d',
      ...usual,
    });
  });

  test('has a command behind two hyphens, which is not looked into', () => {
    const take = { paths: ['/srv', '/home'], dryRun: false, require: 'auto', requireSnapshot: false, leaseMs: 10_000 };
    const words = ['restic', 'backup', '--json', '--', '-x'];
    expect(readCommandLine(['exec', '/srv', '/home', '--', ...words])).toEqual({ kind: 'exec', take, words, ...usual });
    expect(readCommandLine(['exec', '--dry-run', '/srv'])).toMatchObject({ take: { dryRun: true }, words: [] });
    const sized = readCommandLine(['exec', '--cow-size=15%', '--lease', '2.5', '--require=crash', '/a', '--', 'true']);
    expect(sized).toMatchObject({ take: { size: { part: 0.15 }, leaseMs: 2500, require: 'crash' } });
    expect(readCommandLine(['hold', '/srv', '--', 'true'])).toMatchObject({ kind: 'hold', words: ['true'] });
  });

  test("takes a path in a command's place as dragonsdawn-snapshot does", () => {
    const called = readCommandLine(['-v', '-t', '/mnt/s', '/srv', '/home']);
    expect(called).toMatchObject({ kind: '-t', target: '/mnt/s', noStdin: false });
    expect(called).toMatchObject({ take: { paths: ['/srv', '/home'], require: 'none', requireSnapshot: false } });
    expect(readCommandLine(['/srv'])).toMatchObject({ kind: '-t', target: '/mnt' });
    const started = readCommandLine(['start-snapshot', '-t', '/mnt/s', '/srv']);
    const given = ['-t', '/mnt/s', '/srv', '--target', '/mnt/s'];
    expect(started).toMatchObject({ kind: 'start-snapshot', target: '/mnt/s', given });
  });

  test('means a folder below the one it is called in, whoever mounts there later from another one', () => {
    const target = join(process.cwd(), 'sub/s');
    const called = readCommandLine(['start-snapshot', '-t', 'sub/s', '/srv']);
    expect(called).toMatchObject({ target, given: ['-t', 'sub/s', '/srv', '--target', target] });
    expect(readCommandLine(called.kind === 'start-snapshot' ? called.given : [])).toMatchObject({ kind: '-t', target });
  });

  test.each([
    [['bla'], "expected a command or an absolute path, found 'bla'"],
    [[], 'expected a command or a path'],
    [['exec', '/srv'], 'exec: expected -- COMMAND after the paths, found none'],
    [['exec', '/srv', '--'], 'exec: expected -- COMMAND after the paths, found none'],
    [['exec', '--', 'true'], 'exec: expected PATH..., found none'],
    [['/srv', '--', 'true'], '-t takes no command after --'],
    [['exec', '--target', '/mnt', '/srv', '--', 'true'], '--target is an option of -t, start-snapshot'],
    [
      ['exec', '--cow-size', '0', '/srv', '--', 'true'],
      "--cow-size: expected a size (500M, 2G) or a part of the volume (15%), found '0'",
    ],
    [
      ['exec', '--require', 'best', '/srv', '--', 'true'],
      "--require: expected one of none, crash, filesystem, application, auto, found 'best'",
    ],
    [['exec', '--lease', '601', '/srv', '--', 'true'], "--lease: expected seconds from 1 to 600, found '601'"],
    [['gc', 'a'], "gc: expected no operand, found 'a'"],
    [['show'], 'show: expected one RUN, found 0'],
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
  const streams = {
    stdout: (text: string) => (stdout += text),
    stderr: (text: string) => (stderr += text),
    inputEnd: async () => {
      await Promise.resolve();
    },
  };
  const signals = { abort: new AbortController().signal, forward: () => () => undefined };
  return { code: await runSnapshot(words, streams, signals), stdout, stderr };
}

describe('fsfreeze-snapshot', () => {
  test('has help with examples and exit codes for each command', async () => {
    const alone = ['exec', 'hold', 'list', 'show', 'release', 'revert', 'gc', 'providers', '/srv', 'start-snapshot'];
    const writers = ['list', 'test', 'lint'].map((name) => ['writers', name]);
    for (const words of [[], ...alone.map((name) => [name]), ...writers]) {
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

  test('ends with 125 for a wrong call where any other code is that of a command', async () => {
    for (const name of ['exec', 'hold']) expect(await run(name, '/srv')).toMatchObject({ code: 125, stdout: '' });
    expect(await run('exec', '/srv', '--bla', '--', 'true')).toMatchObject({ code: 125 });
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
