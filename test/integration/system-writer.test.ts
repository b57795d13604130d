// fsfreeze-hook.d/90-system with files and a journalctl of the test's own in place of the machine's: asked by hand, and by a
// coordinator whose freezer is a fake one. That the real journald does what is asked of it is seen in a guest (test/vm).
import { afterEach, beforeEach, expect, test } from 'vitest';
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FreezeHarness } from '../support/freeze-harness.js';
import { requires } from '../support/requires.js';
import { ResidentHook } from '../support/resident-hook.js';

const hooks = join(import.meta.dirname, '../../fsfreeze-hook.d');

requires('root', 'findmnt')('90-system', () => {
  let dir: string;
  let hook: string;
  let socket: Server;

  /** The hook, with the machine's paths turned to the test's. */
  const turned = (): string =>
    ['/etc', '/var', '/boot', '/run']
      .reduce(
        (text, path) => text.replaceAll(new RegExp(`(?<=[\\s"'=<])${path}/`, 'g'), `${dir}${path}/`),
        readFileSync(join(hooks, '90-system'), 'utf8'),
      )
      .replace('\n\n[', `\n\nPATH=${join(dir, 'bin')}:$PATH\n[`);
  const file = (path: string, text: string, mode = 0o644): void => {
    mkdirSync(join(dir, path, '..'), { recursive: true });
    writeFileSync(join(dir, path), text, { mode });
  };
  const program = (name: string, body: string): void => {
    file(`bin/${name}`, `#!/bin/sh\necho ${name} "$*" >>'${dir}/calls'\n${body}\n`, 0o755);
  };
  const calls = (name = ''): string[] =>
    existsSync(join(dir, 'calls'))
      ? readFileSync(join(dir, 'calls'), 'utf8')
          .split('\n')
          .filter((line) => line !== '' && line.startsWith(name))
      : [];
  const mountOf = (path: string): string =>
    execFileSync('findmnt', ['-n', '-o', 'TARGET', '-T', path], { encoding: 'utf8' }).trim().split('\n').at(-1) ?? '/';
  const start = (mountpoints = mountOf(dir), ...shell: string[]): ResidentHook =>
    new ResidentHook([...shell, hook], { FSFREEZE_MOUNTPOINTS: mountpoints });
  /** What the journal was asked, by one session that ends as `end` says. */
  async function asked(end: (resident: ResidentHook) => Promise<void>): Promise<string[]> {
    rmSync(join(dir, 'calls'), { force: true });
    const resident = start();
    expect(await resident.ask('prepare')).toBe('ok');
    expect(calls('journalctl')).toEqual(['journalctl --sync', 'journalctl --relinquish-var']);
    await end(resident);
    await resident[Symbol.asyncDispose]();
    return calls('journalctl').slice(2);
  }

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'fsb-system-'));
    hook = join(dir, '90-system');
    writeFileSync(hook, turned(), { mode: 0o755 });
    copyFileSync(join(hooks, '.functions'), join(dir, '.functions'));
    file('etc/machine-id', '0123456789abcdef0123456789abcdef\n');
    file('etc/hostname', 'one\n');
    file('etc/fstab', '/dev/vda1 / ext4 defaults 0 1\n');
    file('etc/lvm/backup/vg', 'vg { seqno = 1 }\n', 0o600);
    file('var/lib/dpkg/status', 'Package: one\n');
    file('run/systemd/x', '');
    mkdirSync(join(dir, 'var/log/journal/0123456789abcdef0123456789abcdef'), { recursive: true });
    mkdirSync(join(dir, 'run/systemd/journal'));
    program('journalctl', '');
    program('dpkg-query', "printf 'one 1.0 ii\\n'");
    socket = createServer().listen(join(dir, 'run/systemd/journal/io.systemd.journal'));
    await expect.poll(() => existsSync(join(dir, 'run/systemd/journal/io.systemd.journal'))).toBe(true);
  });
  afterEach(() => {
    socket.close();
    rmSync(dir, { recursive: true });
  });

  test.each([[[]], [['busybox', 'sh']]])('leaves what the machine is, as files (shell: %j)', async (shell) => {
    await using resident = start(mountOf(dir), ...shell);
    expect(await resident.ask('prepare')).toBe('ok');
    const left = resident.artefacts();
    expect(left['identity']).toContain(`# ${dir}/etc/hostname\none\n`);
    expect(left['packages']).toBe('one 1.0 ii\n');
    expect(left['lvm']).toBe('vg { seqno = 1 }\n');
    expect(left['boot']).toMatch(/^# \/proc\/cmdline\n.+\n# .*\/etc\/fstab\n\/dev\/vda1 /);
    for (const question of ['freeze', 'thaw ok', 'post ok']) expect(await resident.ask(question)).toBe('ok');
  });

  test('makes them anew when something they depend on has changed, and only then', async () => {
    const round = async (): Promise<Record<string, string>> => {
      await using resident = start();
      expect(await resident.ask('prepare')).toBe('ok');
      return resident.artefacts();
    };
    const first = await round();
    expect(await round()).toEqual(first);
    expect(calls('dpkg-query')).toHaveLength(1);
    program('dpkg-query', "printf 'two 2.0 ii\\n'");
    file('var/lib/dpkg/status', 'Package: two\n');
    expect((await round())['packages']).toBe('two 2.0 ii\n');
    file('etc/lvm/backup/vg2', 'vg2\n');
    expect((await round())['lvm']).toBe('vg { seqno = 1 }\nvg2\n');
    rmSync(join(dir, 'etc/lvm/backup/vg'));
    expect((await round())['lvm']).toBe('vg2\n');
  });

  test('no file that not everybody may read; a link counts as what it leads to', async () => {
    file('etc/crypttab', 'secret\n', 0o640);
    file('boot/grub/grub.cfg', 'password_pbkdf2 secret\n', 0o400);
    file('etc/os.real', 'NAME=x\n');
    symlinkSync('os.real', join(dir, 'etc/os-release'));
    await using resident = start();
    expect(await resident.ask('prepare')).toBe('ok');
    expect(JSON.stringify(resident.artefacts())).not.toContain('secret');
    expect(resident.artefacts()['identity']).toContain('NAME=x');
  });

  test('64 KiB each at most: a list of packages is compressed, other files are cut', async () => {
    file('boot/grub/grub.cfg', 'menuentry\n'.repeat(10_000));
    program('dpkg-query', 'seq 20000');
    await using resident = start();
    expect(await resident.ask('prepare')).toBe('ok');
    expect(resident.artefacts()['boot']).toMatch(/\n# cut here\n$/);
    const packages = join(resident.scratch, 'artefacts/packages.gz');
    expect(execFileSync('gzip', ['-dc', packages], { encoding: 'utf8' })).toMatch(/^1\n2\n[\d\n]*\n20000\n$/);
    for (const name of ['boot', 'packages.gz'])
      expect(statSync(join(resident.scratch, 'artefacts', name)).size).toBeLessThanOrEqual(65_536);
  });

  test('the journal goes to memory in prepare, and comes back once: in post, or when the agent ends or has ended', async () => {
    expect(
      await asked(async (resident) => {
        await resident.ask('post ok');
      }),
    ).toEqual(['journalctl --flush']);
    expect(await asked(() => Promise.resolve())).toEqual(['journalctl --flush']);
    const terminated = asked(async (resident) => {
      process.kill(resident.pid, 'SIGTERM');
      await expect.poll(() => calls('journalctl')).toHaveLength(3);
    });
    expect(await terminated).toEqual(['journalctl --flush']);
  });

  test('a journal outside the set, in memory, or of no journald is left alone', async () => {
    const quiet = async (mountpoints = mountOf(dir)): Promise<void> => {
      await using resident = start(mountpoints);
      expect([await resident.ask('prepare'), await resident.ask('post ok')]).toEqual(['ok', 'ok']);
    };
    await quiet('/nowhere');
    rmSync(join(dir, 'var/log/journal'), { recursive: true });
    await quiet();
    mkdirSync(join(dir, 'var/log/journal/0123456789abcdef0123456789abcdef'), { recursive: true });
    socket.close();
    await expect.poll(() => existsSync(join(dir, 'run/systemd/journal/io.systemd.journal'))).toBe(false);
    await quiet();
    expect(calls('journalctl')).toEqual([]);
  });

  test('what fails is told, and the rest is done', async () => {
    program('journalctl', '[ "$1" != --relinquish-var ] || { echo no such method >&2; exit 1; }');
    program('dpkg-query', 'echo broken >&2; exit 2');
    await using resident = start();
    expect(await resident.ask('prepare')).toBe('error the journal may block: no such method; packages: broken');
    expect(Object.keys(resident.artefacts())).toEqual(['boot', 'identity', 'lvm']);
    expect(await resident.ask('post failed')).toBe('ok');
    expect(calls('journalctl').at(-1)).toBe('journalctl --flush');
  });

  test('a journald that hangs is not waited for', async () => {
    program('journalctl', '[ "$1" != --sync ] || exec sleep 60');
    await using resident = start();
    const began = performance.now();
    expect(await resident.ask('prepare')).toBe('error the journal may block: journald does not answer');
    expect(performance.now() - began).toBeLessThan(4_500);
  });

  test('through the agent: it accompanies, its files are in the report, and no level hangs on it', async () => {
    await using harness = new FreezeHarness();
    if (mountOf(dir) !== '/')
      harness.machine.mount({ ...harness.disks.root, mountpoint: mountOf(dir), source: '/dev/vda' });
    copyFileSync(hook, join(harness.dir, 'shipped/90-system'));
    copyFileSync(join(hooks, '.functions'), join(harness.dir, 'shipped/.functions'));
    const coordinator = await harness.start();
    const session = await coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });
    expect(calls('journalctl')).toEqual(['journalctl --sync', 'journalctl --relinquish-var']);
    const report = await session.thaw();
    expect(report).toMatchObject({
      level: 'filesystem',
      outcome: 'ok',
      writers: [],
      accompanying: [{ name: '90-system' }],
    });
    expect(report.artefacts?.map(({ name }) => name)).toEqual(['boot', 'identity', 'lvm', 'packages']);
    await expect.poll(() => calls('journalctl').at(-1)).toBe('journalctl --flush');
  });
});
