import { describe, expect, test } from 'vitest';
import { GetoptError, normalise } from '../../../../src/cli/agent/getopt.js';
import { optionForms } from '../../../../src/cli/agent/option-table.js';

const options = (...words: string[]): readonly string[] => normalise(words, optionForms).options;

describe('getopt forms', () => {
  test.each([
    [['-munix-listen'], ['--method=unix-listen']],
    [['-m', 'unix-listen'], ['--method=unix-listen']],
    [['--method', 'x'], ['--method=x']],
    [['--method=x'], ['--method=x']],
    [['--meth', 'x'], ['--method=x']],
    // Ours do not stand in the way of qemu-ga's: --report-version, --local-socket, --compat, the old --blacklist.
    [['--r'], ['--retry-path']],
    [['--l', '/l'], ['--logfile=/l']],
    [['--c', '/c'], ['--config=/c']],
    [['--b', 'x'], ['--block-rpcs=x']],
    [['--rep', '9'], ['--report-version=9']],
    [['--blackl', 'x'], ['--blacklist=x']],
    [['-vr'], ['--verbose', '--retry-path']],
    [['-vp/a'], ['--verbose', '--path=/a']],
    [['-F'], ['--fsfreeze-hook']],
    [['-F/h'], ['--fsfreeze-hook=/h']],
    [['-vF/h'], ['--verbose', '--fsfreeze-hook=/h']],
    [
      ['-F', '/h', '-v'],
      ['--fsfreeze-hook', '--verbose'],
    ],
    [['--fsfreeze-hook=/h'], ['--fsfreeze-hook=/h']],
    [['-p', '-x'], ['--path=-x']],
    [['extra', '-v'], ['--verbose']],
    [['--', '-v'], []],
    [['-b', 'a=b'], ['--block-rpcs=a=b']],
  ])('%j', (words, expected) => {
    expect(options(...words)).toEqual(expected);
  });

  test.each([
    [['-x'], "invalid option -- 'x'"],
    [['-vx'], "invalid option -- 'x'"],
    [['-m'], "option requires an argument -- 'm'"],
    [['--method'], "option '--method' requires an argument"],
    [['--nope'], "unrecognized option '--nope'"],
    [['--nope=1'], "unrecognized option '--nope=1'"],
    [['--verbose=1'], "option '--verbose' doesn't allow an argument"],
    [['--p', 'x'], "option '--p' is ambiguous; possibilities: '--pidfile' '--path'"],
    [['--ver'], "option '--ver' is ambiguous; possibilities: '--version' '--verbose'"],
  ])('%j is an error in words of glibc', (words, message) => {
    expect(() => options(...words)).toThrow(expect.objectContaining({ message }) as Error);
  });

  test('says what came before the one that is wrong', () => {
    try {
      options('-v', '-rx');
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(GetoptError);
      expect((error as GetoptError).before).toEqual(['--verbose', '--retry-path']);
    }
  });

  test('keeps positional words apart', () => {
    expect(normalise(['a', '-v', '--', '-b'], optionForms).positionals).toEqual(['a', '-b']);
  });
});
