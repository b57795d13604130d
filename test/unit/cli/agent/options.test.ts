import { describe, expect, test } from 'vitest';
import { readInvocation } from '../../../../src/cli/agent/options.js';
import type { Settings } from '../../../../src/cli/agent/settings.js';
import { UsageError } from '../../../../src/errors.js';

const environment = (files: Record<string, string> = {}, variables: Record<string, string> = {}) => ({
  program: 'fsfreeze-agent',
  variables,
  readFile: (path: string) => files[path],
  activated: () => undefined,
  exists: () => false,
  hookAt: () => 'none' as const,
});
const invoke = (words: string[], files?: Record<string, string>, variables?: Record<string, string>) =>
  readInvocation(words, environment(files, variables));
const settings = (words: string[], files?: Record<string, string>, variables?: Record<string, string>): Settings => {
  const invocation = invoke(words, files, variables);
  if (invocation.kind !== 'serve') throw new Error(`expected settings, found ${JSON.stringify(invocation)}`);
  return invocation.settings;
};
const printed = (words: string[], files?: Record<string, string>): string => {
  const invocation = invoke(words, files);
  if (invocation.kind !== 'print') throw new Error('expected a text, found settings');
  expect(invocation.exitCode).toBe(0);
  return invocation.text;
};

describe('settings', () => {
  test('serve the virtio port by default', () => {
    expect(settings([])).toMatchObject({
      method: 'virtio-serial',
      path: '/dev/virtio-ports/org.qemu.guest_agent.0',
      retryPath: false,
      verbose: false,
      compat: '10.2',
      blockRpcs: [],
      allowRpcs: [],
    });
  });

  test('take the command line over the file, and add up lists', () => {
    const file = '[general]\nmethod=isa-serial\nverbose=true\nblock-rpcs=a,b\n[bridge]\nfreezer=/f\n';
    const files = { '/etc/qemu/qemu-ga.conf': file };
    expect(settings([], files)).toMatchObject({ method: 'isa-serial', path: '/dev/ttyS0', verbose: true });
    const merged = settings(['-munix-listen', '-p/s', '-b', 'c', '-bd,e', '--freezer=/g', '--compat=7.2'], files);
    expect(merged).toMatchObject({
      method: 'unix-listen',
      path: '/s',
      blockRpcs: ['a', 'b', 'c', 'd', 'e'],
      compat: '7.2',
    });
    expect(merged.bridge.freezer).toBe('/g');
  });

  test('read the file that -c names, else $QGA_CONF', () => {
    const files = { '/a': '[general]\npath=/from-a\n', '/b': '[general]\npath=/from-b\n' };
    expect(settings(['-c', '/a'], files, { QGA_CONF: '/b' }).path).toBe('/from-a');
    expect(settings([], files, { QGA_CONF: '/b' }).path).toBe('/from-b');
    expect(settings([], files, { QGA_CONF: '/missing' }).method).toBe('virtio-serial');
    expect(() => settings(['-c', '/missing'], files)).toThrow('cannot read /missing: no such file');
  });

  test('tell a file that will not do from one that cannot be read just now', () => {
    const failure = (file: string): unknown => {
      try {
        return readInvocation(['-c', file]);
      } catch (error) {
        return error;
      }
    };
    expect(failure('/')).toBeInstanceOf(UsageError);
    // Its first page is not there: EIO, as from a bad disk.
    const bad = failure('/proc/self/mem');
    expect(bad).toMatchObject({ name: 'BridgeError', code: 'E_CONFIG', message: 'cannot read /proc/self/mem: EIO' });
  });

  test('need no path without a host, whatever path a file names for one', () => {
    const file = '[general]\nmethod=virtio-serial\npath=/dev/port\n';
    for (const words of [
      ['-m', 'none'],
      ['--method=none', '-p', '/dev/other'],
    ]) {
      const found = settings(words, { '/etc/qemu/qemu-ga.conf': file });
      expect(found).toMatchObject({ method: 'none', policy: 'default' });
      expect(found).not.toHaveProperty('path');
    }
    expect(settings([], { '/etc/qemu/qemu-ga.conf': '[general]\nmethod=none\n' }).method).toBe('none');
  });

  test('know the hook without a path, and that /dev/null is none', () => {
    expect(settings(['-F']).fsfreezeHook).toBe('/etc/qemu/fsfreeze-hook');
    expect(settings(['-F', '-v']).fsfreezeHook).toBe('/etc/qemu/fsfreeze-hook');
    expect(settings(['-F/h']).fsfreezeHook).toBe('/h');
    expect(settings(['-F/dev/null']).fsfreezeHook).toBeUndefined();
    expect(settings([]).fsfreezeHook).toBeUndefined();
  });

  test.each([
    [['-m', 'unix-listen'], 'must specify a path for this channel'],
    [['-m', 'vsock-listen'], 'vsock-listen: must specify a path for this channel'],
    [['-m', 'vsock-listen', '-p', '3:1'], 'Node cannot open a vsock; enable fsfreeze-agent-vsock.socket'],
    [['-m', 'pigeon'], 'pigeon: must specify a path for this channel'],
    [
      ['-m', 'pigeon', '-p', '/x'],
      /expected a method of virtio-serial, isa-serial, unix-listen, vsock-listen, none, found 'pigeon'/,
    ],
    [['-m', 'none', '--local-socket=none'], 'nobody could ask this agent for anything'],
    [['--compat=9'], "--compat: expected 10.2 or 7.2, found '9'"],
  ])('%j cannot be served', (words, message) => {
    expect(() => settings(words)).toThrow(message);
    expect(() => settings(words)).toThrow(UsageError);
  });
});

describe('a socket of the service manager', () => {
  const activated = { method: 'unix-listen', fd: 3, path: 'descriptor 3' } as const;
  test('overrides -m and -p', () => {
    const invocation = readInvocation(['-m', 'isa-serial', '-p', '/x'], {
      ...environment(),
      activated: () => activated,
    });
    expect(invocation).toMatchObject({ settings: { method: 'unix-listen', path: 'descriptor 3', activated } });
  });
});

describe('what else can be set', () => {
  test('the pid file, the state folder, the daemon, the version that is reported', () => {
    expect(settings([])).toMatchObject({ daemonize: false, pidfile: '/var/run/qemu-ga.pid', statedir: '/var/run' });
    expect(settings([]).reportVersion).toBeUndefined();
    const files = { '/etc/qemu/qemu-ga.conf': '[general]\ndaemon=true\n[bridge]\nreport-version=10.2.2\n' };
    expect(settings(['-t', '/s', '-f/p'], files)).toMatchObject({
      daemonize: true,
      pidfile: '/p',
      statedir: '/s',
      reportVersion: '10.2.2',
    });
    expect(settings(['--report-version=7.2.0'], files).reportVersion).toBe('7.2.0');
  });

  test("QEMU 7's names of the block list", () => {
    const files = { '/etc/qemu/qemu-ga.conf': '[general]\nblacklist=a\nblock-rpcs=b\n' };
    expect(settings(['--blacklist=c'], files).blockRpcs).toEqual(['a', 'b', 'c']);
  });
});

describe('what is printed at once', () => {
  test('-V, -h and -b help, before anything else is looked at', () => {
    expect(printed(['-m', 'pigeon', '-V'])).toMatch(/^fsfreeze-agent \d+\.\d+\.\d+ /);
    expect(printed(['-h'])).toMatch(/-m, --method=METHOD/);
    for (const words of [['-b', 'help'], ['-b?'], ['--block-rpcs=help']]) {
      expect(printed(words).split('\n')).toContain('guest-fsfreeze-freeze');
    }
  });

  test('what getopt meets before an option that is wrong', () => {
    expect(printed(['-V', '-x'])).toMatch(/^fsfreeze-agent/);
    expect(invoke(['-x', '-V'])).toMatchObject({ exitCode: 1 });
  });

  test('-D with lists by the option that gave them, and with escapes', () => {
    const lines = printed(['-D', '-b', 'a, b', '-b', 'c', '-p', ' /x\\y']).split('\n');
    expect(lines).toContain('block-rpcs=\\sb,a,c');
    expect(lines).toContain('path=\\s/x\\\\y');
  });

  test('-D as qemu-ga prints it, lists reversed, the method not checked', () => {
    const file = '[general]\nlogfile=/l\nallow-rpcs=x\n';
    expect(printed(['-D', '-m', 'pigeon', '-p/p', '-b', 'a,b', '-F'], { '/etc/qemu/qemu-ga.conf': file })).toBe(
      [
        '[general]',
        'daemon=false',
        'method=pigeon',
        'path=/p',
        'logfile=/l',
        'pidfile=/var/run/qemu-ga.pid',
        'fsfreeze-hook=/etc/qemu/fsfreeze-hook',
        'statedir=/var/run',
        'verbose=false',
        'retry-path=false',
        'block-rpcs=b,a',
        'allow-rpcs=x',
        '',
      ].join('\n'),
    );
  });

  test('the hint for an unknown option, on stdout, with exit code 1', () => {
    expect(invoke(['-x'])).toEqual({
      kind: 'print',
      exitCode: 1,
      errorText: "fsfreeze-agent: invalid option -- 'x'\n",
      text: "Unknown option, try 'fsfreeze-agent --help' for more information.\n",
    });
  });
});
