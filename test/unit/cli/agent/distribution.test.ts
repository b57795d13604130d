// --service reads the distributions' files, each as its package ships it or as tutorials have it written
// (qga/README.md, "On the distributions").
import { describe, expect, test } from 'vitest';
import type { HookKind } from '../../../../src/cli/agent/distribution.js';
import { unusedHooks } from '../../../../src/cli/agent/distribution.js';
import { readInvocation } from '../../../../src/cli/agent/options.js';
import type { Settings } from '../../../../src/cli/agent/settings.js';
import { UsageError } from '../../../../src/errors.js';
import { whyDisabled } from '../../../../src/qga/server.js';
import { listsOf } from '../../../../src/qga/policy.js';

const DEBIAN = '/etc/default/qemu-guest-agent';
const RHEL = '/etc/sysconfig/qemu-ga';
const SUSE = '/usr/etc/sysconfig/qemu-ga';
const OURS = '/etc/qemu/qemu-ga.conf';

interface Machine {
  readonly files?: Readonly<Record<string, string>>;
  readonly hooks?: Readonly<Record<string, HookKind>>;
  readonly there?: readonly string[];
}

const machine = ({ files = {}, hooks = {}, there = [] }: Machine) => ({
  program: 'fsfreeze-agent',
  variables: {},
  readFile: (path: string) => files[path],
  activated: () => undefined,
  exists: (path: string) => there.includes(path),
  hookAt: (path: string) => hooks[path] ?? 'none',
});
const settings = (made: Machine, words: readonly string[] = ['--service']): Settings => {
  const invocation = readInvocation(words, machine(made));
  if (invocation.kind !== 'serve') throw new Error('expected settings');
  return invocation.settings;
};
const of = (file: string, text: string, rest: Record<string, string> = {}) =>
  settings({ files: { [file]: text, ...rest } });

/** Whether the host may: as the agent decides it. */
const mayHost = (of: Settings, command: string): boolean => {
  const { policy: preset, blockRpcs, allowRpcs, bridge } = of;
  const lists = listsOf({ preset, blockRpcs, allowRpcs, alsoAllow: bridge['also-allow'] ?? [] });
  return whyDisabled({ compat: '10.2', ...lists, isFrozen: () => false }, command) === undefined;
};

const RHEL_8 = `# This is a systemd environment file, not a shell script.
BLACKLIST_RPC=guest-file-open,guest-file-close,guest-file-read,guest-file-write,guest-file-seek,guest-file-flush,guest-exec,guest-exec-status
FSFREEZE_HOOK_PATHNAME=/etc/qemu-ga/fsfreeze-hook
`;

describe('a list of blocked commands is kept', () => {
  test.each([
    ['Debian and Proxmox tutorials', DEBIAN, 'DAEMON_ARGS="-b guest-file-open,guest-get-users"\n'],
    ['RHEL 8', RHEL, 'BLACKLIST_RPC=guest-file-open,guest-get-users\n'],
    ['RHEL 9', RHEL, 'BLOCK_RPCS="guest-file-open,guest-get-users" # as the auditor wants\n'],
    ['RHEL 9.4 and 10', RHEL, 'FILTER_RPC_ARGS="--block-rpcs=guest-file-open,guest-get-users"\n'],
    ['Fedora', RHEL, 'QEMU_GA_ARGS=--block-rpcs=guest-file-open,guest-get-users\n'],
    ['SUSE', SUSE, 'FILTER_RPC_ARGS="--block-rpcs=guest-file-open,guest-get-users"\n'],
  ])('%s', (_, file, text) => {
    const found = of(file, text, { [OURS]: '[general]\nblock-rpcs=guest-ping\n' });
    for (const name of ['guest-file-open', 'guest-get-users', 'guest-ping']) expect(mayHost(found, name)).toBe(false);
    expect(mayHost(found, 'guest-get-time')).toBe(true);
    expect(found.distribution.used).toMatchObject([{ file, line: 1 }]);
    expect(found.distribution.ignored).toEqual([]);
  });

  test('as RHEL 8 ships it, with the hook of its dispatcher', () => {
    const found = of(RHEL, RHEL_8);
    expect(mayHost(found, 'guest-file-read')).toBe(false);
    expect(found.fsfreezeHook).toBe('/etc/qemu-ga/fsfreeze-hook');
  });

  test('without --service, as qemu-ga: these files are not looked at', () => {
    expect(settings({ files: { [RHEL]: RHEL_8 } }, []).blockRpcs).toEqual([]);
  });

  test('the administrator’s file is stronger than the one SUSE ships', () => {
    const found = of(SUSE, 'FILTER_RPC_ARGS="--block-rpcs=guest-get-users"\n', { [RHEL]: 'FILTER_RPC_ARGS=""\n' });
    expect(found.blockRpcs).toEqual([]);
  });

  test('a freeze that qemu-ga may not do, bridge-freeze may not either', () => {
    const found = of(DEBIAN, 'DAEMON_ARGS="--block-rpcs=guest-fsfreeze-freeze"\n');
    expect(mayHost(found, 'bridge-freeze')).toBe(false);
    expect(mayHost(found, 'bridge-status')).toBe(true);
  });

  test.each([
    ['DAEMON_ARGS="-b $BLOCKED"\n', `${DEBIAN}:1: DAEMON_ARGS: expected a value as it is, found one for a shell`],
    ['A=1\n[ -e /x ] && DAEMON_ARGS=-v\n', `${DEBIAN}:2: DAEMON_ARGS: expected DAEMON_ARGS=VALUE, found a command`],
    ['DAEMON_ARGS=-b a\nDAEMON_ARGS+=",c"\n', `${DEBIAN}:2: DAEMON_ARGS: expected DAEMON_ARGS=VALUE, found a command`],
    ['DAEMON_ARGS="--blockrpcs=a"\n', `${DEBIAN}:1: DAEMON_ARGS: unrecognized option '--blockrpcs=a'`],
    ['DAEMON_ARGS="-b a\n', `${DEBIAN}:1: DAEMON_ARGS: expected a closing quote, found none`],
  ])('what cannot be read for sure is an error: %j', (text, message) => {
    expect(() => of(DEBIAN, text)).toThrow(UsageError);
    expect(() => of(DEBIAN, text)).toThrow(message);
  });
});

describe("RHEL's list of allowed commands", () => {
  const text = 'FILTER_RPC_ARGS="--allow-rpcs=guest-ping,guest-fsfreeze-freeze,guest-set-user-password"\n';
  test('allows what it names, and the freezes with a lease', () => {
    const found = of(RHEL, text);
    for (const name of ['guest-ping', 'guest-set-user-password', 'bridge-freeze', 'bridge-thaw']) {
      expect(mayHost(found, name)).toBe(true);
    }
    expect(mayHost(found, 'guest-exec')).toBe(false);
    expect(mayHost(of(RHEL, 'FILTER_RPC_ARGS="--allow-rpcs=guest-ping"\n'), 'bridge-freeze')).toBe(false);
  });

  test('allows no more than the policy that the administrator has chosen', () => {
    const found = of(RHEL, text, { [OURS]: '[bridge]\npolicy=default\n' });
    expect(mayHost(found, 'guest-set-user-password')).toBe(false);
    expect(mayHost(found, 'guest-ping')).toBe(true);
    const also = '[bridge]\npolicy=default\nalso-allow=guest-set-user-password\n';
    expect(mayHost(of(RHEL, text, { [OURS]: also }), 'guest-set-user-password')).toBe(true);
    const vsock = readInvocation(['--service'], {
      ...machine({ files: { [RHEL]: text } }),
      activated: () => ({ method: 'vsock-listen', fd: 3, path: 'descriptor 3' }),
    });
    if (vsock.kind !== 'serve') throw new Error('expected settings');
    // Every user of the guest can connect to it.
    expect(mayHost(vsock.settings, 'guest-set-user-password')).toBe(false);
    expect(mayHost(vsock.settings, 'guest-fsfreeze-freeze')).toBe(true);
    const none = of(RHEL, 'FILTER_RPC_ARGS=-aguest-exec\n', { [OURS]: '[bridge]\npolicy=freeze-only\n' });
    for (const name of ['guest-exec', 'guest-ping']) expect(mayHost(none, name)).toBe(false);
  });
});

describe('the channel and the log', () => {
  test.each([
    ['TRANSPORT=isa-serial:/dev/ttyS1\n', DEBIAN, { method: 'isa-serial', path: '/dev/ttyS1' }],
    [
      'TRANSPORT_METHOD=unix-listen\nDEVPATH=/s\nLOGFILE=/l\n',
      RHEL,
      { method: 'unix-listen', path: '/s', logfile: '/l' },
    ],
    ['DAEMON_ARGS="--logfile /var/log/a.log --verbose"\n', DEBIAN, { logfile: '/var/log/a.log', verbose: true }],
  ])('%j', (text, file, expected) => {
    expect(of(file, text)).toMatchObject(expected);
  });

  test('is what our own command line says, if it says it', () => {
    expect(settings({ files: { [DEBIAN]: 'TRANSPORT=isa-serial:/dev/ttyS1\n' } }, ['--service', '-p/dev/x']).path).toBe(
      '/dev/x',
    );
  });
});

describe('what is found and not used is told', () => {
  test('a command, a setting of another file, options that a unit has no use for', () => {
    const text = 'sleep 1\nBLOCK_RPCS=guest-exec\nDAEMON_ARGS="-d -f /run/x.pid -v surplus"\n';
    const { distribution, daemonize, verbose } = of(DEBIAN, text);
    expect([daemonize, verbose]).toEqual([false, true]);
    const at = { file: DEBIAN };
    expect(distribution.ignored).toEqual([
      { ...at, line: 1, setting: 'sleep 1', why: 'a command: this file is read, and not run' },
      { ...at, line: 2, setting: 'BLOCK_RPCS', why: 'no setting of this file, expected DAEMON_ARGS, TRANSPORT' },
      { ...at, line: 3, setting: 'DAEMON_ARGS: --daemonize', why: 'of no use under a unit' },
      { ...at, line: 3, setting: 'DAEMON_ARGS: --pidfile=/run/x.pid', why: 'of no use under a unit' },
      { ...at, line: 3, setting: 'DAEMON_ARGS: surplus', why: 'not an option' },
    ]);
  });

  test('a daemon that qemu-ga’s own file asks for: the unit’s agent stays in the foreground', () => {
    const why = 'of no use under a unit';
    const asked = of(OURS, '[general]\ndaemon=true\n');
    expect(asked.daemonize).toBe(false);
    expect(asked.distribution.ignored).toEqual([{ file: OURS, setting: 'daemon=true', why }]);
    const called = settings({}, ['--service', '-d']);
    expect(called.daemonize).toBe(false);
    expect(called.distribution.ignored).toEqual([{ file: 'command line', setting: '--daemonize', why }]);
    expect(settings({ files: { [OURS]: '[general]\ndaemon=true\n' } }, []).daemonize).toBe(true);
  });

  test('changes to the unit of qemu-ga, which may block commands', () => {
    const there = '/etc/systemd/system/qemu-guest-agent.service.d';
    expect(settings({ there: [there] }).distribution.ignored).toMatchObject([{ file: there }]);
  });
});

describe('hooks that nothing names', () => {
  const [first, second] = ['/etc/qemu/fsfreeze-hook', '/etc/qemu-ga/fsfreeze-hook'];
  test.each([first, second])('%s of the administrator’s own is run', (path) => {
    expect(settings({ hooks: { [path]: 'own' } }).fsfreezeHook).toBe(path);
    expect(settings({ hooks: { [path]: 'own' } }, []).fsfreezeHook).toBeUndefined();
  });

  test('QEMU’s dispatcher is none, and neither is one that is named otherwise', () => {
    expect(settings({ hooks: { [first]: 'dispatcher', [second]: 'own' } }).fsfreezeHook).toBe(second);
    const hooks = { [first]: 'own', [second]: 'not-executable' } as const;
    const found = settings({ hooks, files: { [DEBIAN]: 'DAEMON_ARGS=-F/opt/backup/hook.sh\n' } });
    expect(found.fsfreezeHook).toBe('/opt/backup/hook.sh');
    expect(unusedHooks(found.distribution, found.fsfreezeHook)).toEqual([
      { file: first, setting: 'hook', why: `/opt/backup/hook.sh is used; to have both, put it into ${first}.d` },
      { file: second, setting: 'hook', why: 'not executable' },
    ]);
  });

  test('an empty FSFREEZE_HOOK_PATHNAME is the usual path, /dev/null is none', () => {
    expect(of(RHEL, 'FSFREEZE_HOOK_PATHNAME=\n').fsfreezeHook).toBe(first);
    const hooks = { [first]: 'own' } as const;
    const files = { [RHEL]: 'FSFREEZE_HOOK_PATHNAME=/dev/null\n' };
    expect(settings({ hooks, files }).fsfreezeHook).toBeUndefined();
  });
});
