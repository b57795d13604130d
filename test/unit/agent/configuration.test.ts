import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseConfiguration } from '../../../src/agent/configuration.js';
import { UsageError } from '../../../src/errors.js';

const parse = (text: string) => parseConfiguration(text, 'f.conf');

describe('parseConfiguration', () => {
  test('has defaults for an empty file', () => {
    expect(parse('')).toEqual({
      general: { blockRpcs: [], allowRpcs: [] },
      bridge: {
        'lease-ms': 60_000,
        'lease-max-s': 600,
        'prepare-budget-s': 60,
        'plain-prepare-s': 5,
        'hold-budget-s': 15,
        'plain-hook-s': 10,
        'hook-failure': 'refuse',
        'freeze-limit-ms': 8000,
        'include-mountpoints': [],
        'include-types': [],
        'exclude-mountpoints': [],
        'exclude-types': [],
        'trust-plain-hooks': false,
        'expedite-rcu': true,
        freezer: '/usr/lib/fsfreeze-bridge/freezer',
        'runtime-dir': '/run/fsfreeze-bridge',
      },
    });
  });

  test('reads qemu-ga keys and ignores those it does not know', () => {
    const { general } = parse(
      '# c\n[general]\nmethod = unix-listen\npath=/a\\sb\nverbose=1\nretry-path=false\nblock-rpcs=x,y\nfoo=1\n[other]\nz=1\n',
    );
    expect(general).toEqual({
      method: 'unix-listen',
      path: '/a b',
      verbose: true,
      retryPath: false,
      blockRpcs: ['x', 'y'],
      allowRpcs: [],
    });
  });

  test('keeps what qemu-ga does not split: lists are split on commas alone', () => {
    expect(parse('[general]\nblock-rpcs=a;b\n').general.blockRpcs).toEqual(['a;b']);
  });

  test('reads rules for filesystems', () => {
    expect(parse('[bridge]\nexclude-mountpoints=/srv/*, /mnt/**\nexclude-types=xfs,fuse.sshfs\n').bridge).toMatchObject(
      {
        'exclude-mountpoints': ['/srv/*', '/mnt/**'],
        'exclude-types': ['xfs', 'fuse.sshfs'],
        'include-types': [],
      },
    );
  });

  test('reads our keys', () => {
    const { bridge } = parse(
      '[bridge]\nlease-ms=2500\ntrust-plain-hooks=true\nexpedite-rcu=0\nwriter-folders=/a, /b\nlocal-socket=none\n',
    );
    expect(bridge).toMatchObject({
      'lease-ms': 2500,
      'trust-plain-hooks': true,
      'expedite-rcu': false,
      'writer-folders': ['/a', '/b'],
      'local-socket': 'none',
    });
  });

  test.each([
    // As GLib: a byte order mark is no blank, and what is no UTF-8 (here already decoded) no value.
    ['\uFEFF[general]\npath=/x', /f\.conf:1: expected \[group\], key=value or a comment/],
    ['[general]\npath=/\uFFFDx', /f\.conf: \[general\] path: expected UTF-8/],
    ['[bridge]\nlease=5', /f\.conf: \[bridge\] lease: unknown key, expected one of lease-ms, /],
    ['[bridge]\ntoString=5', /\[bridge\] toString: unknown key/],
    [
      '[bridge]\nlease-ms=0',
      /\[bridge\] lease-ms: expected a whole number of milliseconds from 100 to 3600000, found "0"/,
    ],
    ['[bridge]\nlease-ms=10s', /lease-ms: expected a whole number/],
    ['[bridge]\ntrust-plain-hooks=yes', /trust-plain-hooks: expected true or false, found "yes"/],
    ['[bridge]\nfreezer=x', /freezer: expected an absolute path/],
    ['[bridge]\nwriter-folders=/a,b', /writer-folders: expected absolute paths/],
    ['[bridge]\nfreeze-limit-ms=50', /freeze-limit-ms: expected a whole number of milliseconds from 100 to .*"50"/],
    ['[bridge]\nexclude-mountpoints=srv', /\[bridge\] exclude-mountpoints: expected absolute mount points .*"srv"/],
    ['[bridge]\nexclude-mountpoints=/a,', /exclude-mountpoints: expected absolute mount points .*found ""/],
    ['[bridge]\nexclude-mountpoints=/srv/', /exclude-mountpoints: .*without a slash at their end.*"\/srv\/"/],
    ['[bridge]\ninclude-mountpoints=/{a,b}', /include-mountpoints: .*wildcards.*"\/{a"/],
    ['[bridge]\ninclude-mountpoints=/a/../b', /include-mountpoints: expected absolute mount points/],
    ['[bridge]\nexclude-types=ext4;xfs', /exclude-types: expected filesystem types .*"ext4;xfs"/],
    ['[bridge]\ninclude-types=/', /include-types: expected filesystem types .*"\/"/],
    ['[bridge]\nlog-level=loud', /log-level: expected one of debug, info, warn, error/],
    ['[bridge]\nlocal-socket=x', /local-socket: expected an absolute path, or none/],
    ['[bridge]\nlease-max-s=30', /lease-ms: expected at most lease-max-s \(30000 ms\), found 60000/],
    ['[general]\nverbose=maybe', /f\.conf: \[general\] verbose: expected true or false, found 'maybe'/],
    ['[general]\npath=\\q', /\[general\] path: expected one of .* found '\\q'/],
    ['verbose=1', /f\.conf:1: expected a \[group\] before the first key/],
    ['[general]\nnonsense', /f\.conf:2: expected \[group\], key=value or a comment, found 'nonsense'/],
  ])('refuses %j in one line', (text, message) => {
    expect(() => parse(text)).toThrow(message);
    expect(() => parse(text)).toThrow(UsageError);
  });

  test('takes the example, whole and with every default written out', () => {
    const example = readFileSync(new URL('../../../qga/conf/qemu-ga.conf', import.meta.url), 'utf8');
    expect(parse(example)).toEqual(parse(''));
    const uncommented = example.replace(/^#(?=[a-z-]+=)/gm, '');
    const { bridge } = parse(uncommented);
    expect(bridge).toMatchObject(parse('').bridge);
  });
});

describe('[bridge] policy', () => {
  const bridge = (lines: string) => parseConfiguration(`[bridge]\n${lines}\n`, 'file').bridge;

  test('is as said', () => {
    expect(bridge('').policy).toBeUndefined();
    expect(bridge('policy = full').policy).toBe('full');
    expect(() => bridge('policy=none')).toThrow(
      'file: [bridge] policy: expected one of freeze-only, default, full, found "none"',
    );
  });

  test('also-allow names commands there are', () => {
    expect(bridge('also-allow=guest-exec, guest-exec-status')['also-allow']).toEqual([
      'guest-exec',
      'guest-exec-status',
    ]);
    expect(() => bridge('also-allow=guest-exec,guest-exce')).toThrow('expected names of commands, separated by commas');
  });

  test('is in the example file with its default', () => {
    const example = readFileSync(new URL('../../../qga/conf/qemu-ga.conf', import.meta.url), 'utf8');
    expect(example).toContain('\n#policy=default\n');
    expect(parseConfiguration(example.replaceAll(/^#(?=[a-z-]+=)/gm, ''), 'example').bridge).toMatchObject({
      policy: 'default',
      'also-allow': ['guest-exec', 'guest-exec-status'],
    });
  });
});
