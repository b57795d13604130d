// fsfreeze-hook.d/40-units on real control groups of this machine, made for the test below its root; systemd is a program
// that answers for it. Asked by hand, and by a coordinator whose freezer is a fake one. No filesystem is frozen.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FreezeHarness } from '../support/freeze-harness.js';
import { requires } from '../support/requires.js';

const hooks = join(import.meta.dirname, '../../fsfreeze-hook.d');
const hook = join(hooks, '40-units');
const root = /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/self/mounts', 'utf8'))?.[1] ?? '';

requires(
  'root',
  'findmnt',
  'cgroup2',
)('40-units', () => {
  let dir: string;
  let conf: string;
  let slice: string;
  let processes: ChildProcess[];

  const group = (name: string): string => join(slice, name);
  const frozen = (name = 'app.service'): boolean =>
    /^frozen 1$/m.test(readFileSync(join(group(name), 'cgroup.events'), 'utf8'));
  /** As systemd answers; `more` replaces lines. */
  const unit = (id: string, more: Readonly<Record<string, string>> = {}): string =>
    Object.entries({
      Id: id,
      LoadState: 'loaded',
      ControlGroup: group(id).slice(root.length),
      Slice: `fsb-units-${process.pid}.slice`,
      WatchdogUSec: '0',
      ...more,
    })
      .map(([key, value]) => `${key}=${value}`)
      .join('\n');
  const systemd = (...units: string[]): void => {
    writeFileSync(join(dir, 'units'), units.join('\n\n') + '\n');
    writeFileSync(conf, units.map((one) => `UNIT=${/^Id=(.*)/.exec(one)?.[1] ?? ''}\n`).join(''));
  };
  /** A process in a group of its own. */
  async function start(name: string, program = '/bin/sleep'): Promise<void> {
    mkdirSync(group(name), { recursive: true });
    const child = spawn(program, ['600'], { stdio: 'ignore' });
    await once(child, 'spawn');
    processes.push(child);
    writeFileSync(join(group(name), 'cgroup.procs'), String(child.pid));
  }
  const environment = (mountpoints: string) => ({
    PATH: `${join(dir, 'bin')}:/usr/sbin:/usr/bin:/sbin:/bin`,
    FSFREEZE_SCRATCH: join(dir, 'scratch'),
    FSFREEZE_MOUNTPOINTS: mountpoints,
    FSFREEZE_LEASE_MS: '30000',
    FSFREEZE_UNITS_CONF: conf,
  });
  /** Exit code, then the reason. */
  const run = (phase: string, { shell = 'sh', mountpoints = '/' } = {}): string => {
    const [program = '', ...words] = shell.split(' ');
    const { status, stderr } = spawnSync(program, [...words, hook, phase], {
      env: environment(mountpoints),
      encoding: 'utf8',
      timeout: 15_000,
    });
    return `${status}${stderr === '' ? '' : ` ${stderr.trim()}`}`;
  };

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'fsb-units-'));
    slice = join(root, `fsb.slice/fsb-units.slice/fsb-units-${process.pid}.slice`);
    mkdirSync(slice, { recursive: true });
    conf = join(dir, 'units.conf');
    processes = [];
    for (const name of ['bin', 'scratch']) mkdirSync(join(dir, name));
    writeFileSync(join(dir, 'bin/systemctl'), `#!/bin/sh\nexec cat '${dir}/units'\n`, { mode: 0o755 });
  });
  afterEach(async () => {
    for (const child of processes) {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await ended;
    }
    for (const name of ['app.service', 'other.service', 'other'])
      if (existsSync(group(name))) await removed(group(name));
    for (const one of [slice, join(slice, '..'), join(slice, '../..')]) await removed(one);
    rmSync(dir, { recursive: true });
  });
  // The kernel lets an ended process go a moment later.
  async function removed(one: string): Promise<void> {
    await expect
      .poll(() => {
        try {
          rmdirSync(one);
        } catch (error) {
          return (error as NodeJS.ErrnoException).code;
        }
        return 'removed';
      })
      .toMatch(/removed|ENOENT/);
  }

  test.each(['dash', 'busybox sh', 'bash'])('frozen, proved, thawed twice (%s)', async (shell) => {
    await start('app.service');
    systemd(unit('app.service'));
    expect(run('prepare', { shell })).toBe('0');
    expect(frozen()).toBe(false);
    expect(run('freeze', { shell })).toBe('0');
    expect(frozen()).toBe(true);
    expect(run('verify', { shell })).toBe('0');
    expect(run('thaw', { shell })).toBe('0');
    expect(frozen()).toBe(false);
    expect(run('verify', { shell })).toBe('1 app.service is not frozen any more');
    expect(run('thaw', { shell })).toBe('0');
  });

  test('without a configuration, or where no unit of it runs: not applicable', async () => {
    expect(run('prepare')).toBe('3');
    systemd(unit('app.service', { ControlGroup: '' }));
    expect(run('prepare')).toBe('3');
    expect(run('thaw')).toBe('0');
    await start('app.service');
    expect(run('prepare')).toBe('0');
  });

  test('thawed by a stranger, killed, or started meanwhile: verify fails, and says which', async () => {
    await start('app.service');
    systemd(unit('app.service'), unit('other.service', { ControlGroup: '' }));
    expect(run('prepare')).toBe('0');
    expect(run('freeze')).toBe('0');
    await start('other.service');
    expect(run('verify')).toBe('1 other.service was started since prepare');
    writeFileSync(join(group('app.service'), 'cgroup.freeze'), '0');
    expect(run('verify')).toBe('1 app.service is not frozen any more');
    processes[0]?.kill('SIGKILL');
    await removed(group('app.service'));
    expect(run('verify')).toBe('1 app.service has ended, or was started anew, since it was frozen');
    expect(run('thaw')).toBe('0');
  });

  test('what somebody else had frozen counts as held, and stays so', async () => {
    await start('app.service');
    systemd(unit('app.service'));
    writeFileSync(join(group('app.service'), 'cgroup.freeze'), '1');
    for (const phase of ['prepare', 'freeze', 'verify', 'thaw']) expect(run(phase)).toBe('0');
    expect(frozen()).toBe(true);
    writeFileSync(join(group('app.service'), 'cgroup.freeze'), '0');
  });

  test.each([
    ['dbus.service', 'systemd and every login wait for it'],
    ['systemd-journald.service', "it is systemd's own"],
    ['init.scope', "it is systemd's own"],
    ['fsfreeze-agent.service', 'nobody would thaw'],
    ['ssh.service', 'it is the way in when something goes wrong'],
  ])('%s is refused: %s', (id, why) => {
    systemd(unit(id));
    expect(run('prepare')).toBe(`1 ${id} is never frozen: ${why}`);
  });

  test('a group in which such a process is, however deep, is refused', async () => {
    copyFileSync('/bin/sleep', join(dir, 'sshd'));
    chmodSync(join(dir, 'sshd'), 0o755);
    await start('app.service');
    await start('other', join(dir, 'sshd'));
    const [, id = ''] = /([^/]*)$/.exec(slice) ?? [];
    systemd(unit(id, { ControlGroup: slice.slice(root.length) }));
    expect(run('prepare')).toBe(`1 ${id} is never frozen: sshd (pid ${processes[1]?.pid}) is in it`);
  });

  test('a watchdog shorter than the lease is refused, a longer one is not', async () => {
    await start('app.service');
    systemd(unit('app.service', { WatchdogUSec: '30s' }));
    expect(run('prepare')).toContain('1 app.service: its WatchdogSec of 30s would end it within the lease of 30000 ms');
    systemd(unit('app.service', { WatchdogUSec: '30s 1ms' }));
    expect(run('prepare')).toBe('0');
  });

  test('mistakes in the configuration are named', () => {
    for (const [line, says] of [
      ['app.service', 'expected UNIT=NAME or UNIT=NAME PATH..., found: app.service'],
      ['UNIT=app.mount', 'app.mount: expected a service, a scope or a slice'],
      ['UNIT=*.service', "expected a unit's name, found: *.service"],
      ['UNIT=app.service data', 'app.service: expected absolute paths, found: data'],
    ] as const) {
      writeFileSync(conf, line);
      expect(run('prepare')).toBe(`1 ${conf}: ${says}`);
    }
    systemd(unit('app.service', { LoadState: 'not-found' }));
    expect(run('prepare')).toBe('1 app.service: expected a unit that systemd knows, found it not-found');
  });

  test('a unit with paths takes part where they are in the set', async () => {
    await start('app.service');
    systemd(unit('app.service'));
    writeFileSync(conf, 'UNIT=app.service /usr/bin\n');
    expect(run('prepare', { mountpoints: '/nowhere' })).toBe('3');
    const mount = spawnSync('findmnt', ['-n', '-o', 'TARGET', '-T', '/usr/bin'], { encoding: 'utf8' }).stdout.trim();
    expect(run('prepare', { mountpoints: mount })).toBe('0');
    writeFileSync(conf, 'UNIT=app.service /usr/bin /proc/self\n');
    expect(run('prepare', { mountpoints: mount })).toMatch(/^1 \/.* is in the set that is cut, but .* is not$/);
  });

  test('through the agent: application', async () => {
    await start('app.service');
    systemd(unit('app.service'));
    await using harness = new FreezeHarness();
    copyFileSync(join(hooks, '.functions'), join(harness.dir, 'shipped/.functions'));
    const copy = join(harness.dir, 'shipped/40-units');
    // The agent's PATH is a fixed one.
    const text = readFileSync(hook, 'utf8')
      .replaceAll('/etc/fsfreeze-bridge/units.conf', conf)
      .replaceAll('systemctl show', `${join(dir, 'bin/systemctl')} show`);
    writeFileSync(copy, text, { mode: 0o755 });
    const coordinator = await harness.start();
    const session = await coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });
    expect(frozen()).toBe(true);
    const report = await session.thaw();
    expect(frozen()).toBe(false);
    expect(report).toMatchObject({
      level: 'application',
      outcome: 'ok',
      writers: [{ verdict: 'verified', guarantee: 'held' }],
    });
  });
});
