// The guest's rpm, with Debian's rpm: what is in it, that this is what the Debian package holds, what it asks of a system,
// and its scriptlets by installing, upgrading and erasing it in a root folder of nothing but busybox and programs that
// write down how they are called. No rpm distribution was there to install it in, and no SELinux.
import { execa } from 'execa';
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PACKAGE_VERSION } from '../../src/version.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

const project = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const rpmFile = project('build/fsfreeze-agent.rpm');
const debFile = project('build/fsfreeze-agent.deb');
const cil = project('qga/package/rpm/fsfreeze-agent.cil');
const CIL_TARGET = 'usr/share/selinux/packages/fsfreeze-agent.cil';

let folder: Scratch;
beforeAll(() => {
  folder = scratch();
});
afterAll(() => {
  folder[Symbol.dispose]();
});

const query = async (...words: readonly string[]): Promise<readonly string[]> =>
  (await execa('rpm', ['--dbpath', folder.path('none'), '-qp', ...words, rpmFile])).stdout.split('\n').filter(Boolean);

requires(
  'rpmbuild',
  'dpkg-deb',
  'cpio',
)('the rpm of the agent', () => {
  beforeAll(async () => {
    if (!existsSync(rpmFile)) throw new Error(`${rpmFile} is missing: run npm run build first`);
    await execa('dpkg-deb', ['--extract', debFile, folder.path('deb')]);
    mkdirSync(folder.path('rpm'));
    await execa('sh', ['-c', 'rpm2cpio "$1" | cpio -idm --quiet', 'sh', rpmFile], { cwd: folder.path('rpm') });
  });

  test('holds what the Debian package holds, with the same owners and modes, and its SELinux module', async () => {
    const rows = await query('--queryformat', '[%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILENAMES}\n]');
    const files = rows.filter((row) => !row.startsWith('d'));
    const { stdout } = await execa('dpkg-deb', ['--contents', debFile]);
    const inDeb = stdout.split('\n').filter((row) => !row.startsWith('d'));
    const expected = inDeb.map((row) => row.replace(/^(\S+) (\S+)\/(\S+) .* \.(\/.*?)(?: -> .*)?$/, '$1 $2 $3 $4'));
    expect([...files].sort()).toEqual([...expected, `-rw-r--r-- root root /${CIL_TARGET}`].sort());
    await execa('diff', ['--recursive', '--exclude=selinux', folder.path('deb'), folder.path('rpm')]);
    expect(readFileSync(folder.path(`rpm/${CIL_TARGET}`), 'utf8')).toBe(readFileSync(cil, 'utf8'));
  });

  test('asks for the glibc that the executable needs, and so does the Debian package', async () => {
    const { stdout } = await execa('objdump', ['-T', folder.path('rpm/usr/bin/fsfreeze-agent')]);
    const newest = (name: string): string => {
      const minors = [...stdout.matchAll(new RegExp(`\\(${name}_([0-9.]+)\\)`, 'g'))].map(
        ([, version = '']) => version,
      );
      return minors.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1) ?? '';
    };
    expect(newest('GLIBC')).toBe('2.28');
    // GCC 5's libstdc++.
    expect(newest('GLIBCXX')).toBe('3.4.21');
    expect(await query('--requires')).toEqual(expect.arrayContaining(['glibc >= 2.28', 'libstdc++ >= 5']));
    const { stdout: depends } = await execa('dpkg-deb', ['--field', debFile, 'Depends']);
    expect(depends).toBe('libc6 (>= 2.28), libstdc++6 (>= 5)');
    // The freezer is static: what it needs of the kernel it says itself.
    const freezer = await execa('objdump', ['-p', folder.path('rpm/usr/lib/fsfreeze-bridge/freezer')]);
    expect(freezer.stdout).toContain('LOAD');
    expect(freezer.stdout).not.toContain('NEEDED');
  });

  test('recommends what its commands start', async () => {
    expect(await query('--recommends')).toEqual(expect.arrayContaining(['iproute', 'shadow-utils', 'util-linux']));
    const { stdout } = await execa('dpkg-deb', ['--field', debFile, 'Recommends']);
    for (const name of ['iproute2', 'passwd', 'util-linux-extra']) expect(stdout).toContain(name);
  });

  test('is compressed by what RHEL 8 can read', async () => {
    expect(await query('--queryformat', '%{PAYLOADCOMPRESSOR} %{ARCH} %{VERSION}\n')).toEqual([
      `gzip x86_64 ${PACKAGE_VERSION}`,
    ]);
  });
});

requires(
  'root',
  'rpmbuild',
  '/bin/busybox',
)('the scriptlets of the rpm', () => {
  const root = () => folder.path('root');

  /** Programs that say how they were called. */
  const stubs: Readonly<Record<string, string>> = {
    getent: 'exit 2',
    groupadd: '',
    systemctl: 'case "$*" in *is-active*) exit 3 ;; esac',
    udevadm: '',
    semodule: '',
    selinuxenabled: '',
    setsebool: '',
    restorecon: '',
  };

  beforeAll(() => {
    for (const name of ['bin', 'usr/bin', 'usr/sbin', 'run/systemd/system', 'dev/virtio-ports', 'etc', 'tmp']) {
      mkdirSync(join(root(), name), { recursive: true });
    }
    copyFileSync('/bin/busybox', join(root(), 'bin/busybox'));
    for (const [name, rest] of Object.entries(stubs)) stub(`usr/sbin/${name}`, rest);
    for (const name of ['sh', 'mkdir', 'echo', 'printf', 'cat']) {
      stub(`bin/${name}`, '', `#!/bin/busybox sh\nexec /bin/busybox ${name} "$@"\n`);
    }
    copyFileSync('/bin/busybox', join(root(), 'bin/sh'));
    writeFileSync(join(root(), 'dev/virtio-ports/org.qemu.guest_agent.0'), '');
    writeFileSync(join(root(), 'dev/null'), '');
  });

  function stub(target: string, rest: string, text?: string): void {
    const script = text ?? `#!/bin/sh\necho "\${0##*/} $*" >>/log\n${rest}\n`;
    writeFileSync(join(root(), target), script, { mode: 0o755 });
  }

  async function rpm(...words: readonly string[]) {
    writeFileSync(join(root(), 'log'), '');
    const dbpath = ['--dbpath', '/var/lib/rpm', '--nodeps', '--noplugins', '--nosignature'];
    const { all } = await execa('rpm', ['--root', root(), ...dbpath, ...words], { all: true, timeout: 120_000 });
    return { log: readFileSync(join(root(), 'log'), 'utf8').trim().split('\n').filter(Boolean), said: all };
  }

  const RESTARTED = [
    'systemctl daemon-reload',
    'systemctl enable --quiet fsfreeze-freezer.service fsfreeze-agent-local.service fsfreeze-snapshot-gc.service',
    'systemctl restart fsfreeze-freezer.service',
    'udevadm control --reload',
    'systemctl --quiet is-active fsfreeze-agent-vsock.service',
    'udevadm trigger --subsystem-match=virtio-ports',
    'systemctl restart fsfreeze-agent.service',
  ];
  const LABELLED = [
    'selinuxenabled ',
    'semodule -X 200 -i /usr/share/selinux/packages/fsfreeze-agent.cil',
    'setsebool -P virt_qemu_ga_run_unconfined on',
    'restorecon -R /usr/bin/fsfreeze-agent /usr/lib/fsfreeze-bridge /etc/fsfreeze-bridge /run/fsfreeze-bridge',
  ];

  test('labels, makes the group, says what is to be seen to, and starts both', async () => {
    // The executable itself needs a C library, which this root has not.
    const { log, said } = await rpm('-i', rpmFile);
    expect(log).toEqual([
      ...LABELLED,
      'getent group fsfreeze-bridge',
      'groupadd --system fsfreeze-bridge',
      ...RESTARTED,
    ]);
    expect(said).toContain('fsfreeze-agent --check-config: see to this');
    expect(existsSync(join(root(), 'usr/lib/fsfreeze-bridge/freezer'))).toBe(true);
  });

  test('upgraded, restarts both once and stops nothing', async () => {
    const { log } = await rpm('-U', '--replacepkgs', '--replacefiles', rpmFile);
    expect(log.filter((row) => / (restart|stop|disable) /.test(row))).toEqual([
      'systemctl restart fsfreeze-freezer.service',
      'systemctl restart fsfreeze-agent.service',
    ]);
    expect(log.some((row) => row.startsWith('semodule -X 200 -r'))).toBe(false);
  });

  test('where there is no port, starts the agent that needs none', async () => {
    const port = join(root(), 'dev/virtio-ports/org.qemu.guest_agent.0');
    rmSync(port);
    const { log } = await rpm('-U', '--replacepkgs', '--replacefiles', rpmFile);
    writeFileSync(port, '');
    expect(log.filter((row) => / (restart|stop|disable) /.test(row))).toEqual([
      'systemctl restart fsfreeze-freezer.service',
      'systemctl restart fsfreeze-agent-local.service',
    ]);
  });

  test('erased, stops both, the socket first, and takes its module away', async () => {
    const { log } = await rpm('-e', 'fsfreeze-agent');
    expect(log).toEqual([
      'systemctl disable --quiet --now fsfreeze-agent-vsock.socket',
      'systemctl stop fsfreeze-agent.service fsfreeze-agent-vsock.service',
      'systemctl disable --quiet --now fsfreeze-agent-local.service',
      'systemctl disable --quiet fsfreeze-snapshot-gc.service',
      'systemctl disable --quiet --now fsfreeze-freezer.service',
      'systemctl daemon-reload',
      'selinuxenabled ',
      'semodule -X 200 -r fsfreeze-agent',
    ]);
    expect(existsSync(join(root(), 'usr/bin/fsfreeze-agent'))).toBe(false);
    expect(existsSync(join(root(), 'etc/fsfreeze-bridge'))).toBe(false);
  });
});

requires('secilc')('the SELinux module of the rpm', () => {
  /** As much of a policy as it speaks of: the types are RHEL's (virt_qemu_ga_selinux(8)), the rules are not. */
  const classes = {
    process: 'execmem getsched setsched setrlimit signal sigkill sigstop signull getpgid',
    capability: 'sys_admin dac_read_search ipc_lock sys_resource sys_nice kill',
    dir: 'getattr open read search ioctl',
    file: 'map',
    sock_file: 'create getattr setattr write unlink',
    lnk_file: 'create getattr read unlink',
    unix_stream_socket: 'connectto',
    unix_dgram_socket: 'create write sendto',
  };
  const types =
    'virt_qemu_ga_t virt_qemu_ga_unconfined_t virt_qemu_ga_exec_t virt_qemu_ga_unconfined_exec_t virt_qemu_ga_var_run_t init_t init_var_run_t';
  const base = [
    ...Object.entries(classes).map(([name, permissions]) => `(class ${name} (${permissions}))`),
    `(classorder (${Object.keys(classes).join(' ')}))`,
    '(sid kernel)(sidorder (kernel))(sensitivity s0)(sensitivityorder (s0))(category c0)(categoryorder (c0))',
    '(sensitivitycategory s0 (c0))(user system_u)(role system_r)(role object_r)(userrole system_u system_r)',
    '(userrole system_u object_r)(userlevel system_u (s0))(userrange system_u ((s0)(s0 (c0))))',
    '(typeattribute file_type)',
    ...types.split(' ').map((type) => `(type ${type})(roletype system_r ${type})(roletype object_r ${type})`),
    '(typeattributeset file_type (virt_qemu_ga_exec_t virt_qemu_ga_unconfined_exec_t virt_qemu_ga_var_run_t))',
    '(sidcontext kernel (system_u system_r init_t ((s0)(s0))))',
  ].join('\n');

  test('lets READY=1 and WATCHDOG=1 reach systemd, whose socket has a type of its own', async () => {
    writeFileSync(folder.path('base.cil'), base);
    // sendto(2) on a path needs both. A policy that forbids what the module allows does not compile, and names it.
    for (const rule of ['init_t (unix_dgram_socket (sendto))', 'init_var_run_t (sock_file (write))']) {
      writeFileSync(folder.path('never.cil'), `(neverallow virt_qemu_ga_t ${rule})`);
      const files = [folder.path('base.cil'), cil, folder.path('never.cil')];
      const compiled = execa('secilc', ['-o', folder.path('policy'), '-f', folder.path('contexts'), ...files]);
      await expect(compiled).rejects.toMatchObject({
        stderr: expect.stringContaining(`(allow virt_qemu_ga_t ${rule})`) as string,
      });
    }
  });

  test('compiles, and gives each file its domain', async () => {
    writeFileSync(folder.path('base.cil'), base);
    await execa('secilc', [
      '-m',
      '-M',
      '1',
      '-o',
      folder.path('policy'),
      '-f',
      folder.path('contexts'),
      folder.path('base.cil'),
      cil,
    ]);
    const contexts = readFileSync(folder.path('contexts'), 'utf8')
      .trim()
      .split('\n')
      .map((row) => row.split(/\t+|\s{2,}/));
    const contextOf = (path: string): string | undefined =>
      contexts.findLast(([expression = '']) => new RegExp(`^(?:${expression})$`).test(path))?.at(-1);
    const gives = (type: string): string => `system_u:object_r:${type}:s0`;
    for (const [path, type] of [
      ['/usr/bin/fsfreeze-agent', 'virt_qemu_ga_exec_t'],
      ['/usr/lib/fsfreeze-bridge/freezer', 'virt_qemu_ga_exec_t'],
      ['/usr/lib/fsfreeze-bridge/fsfreeze-hook.d/50-postgresql', 'virt_qemu_ga_unconfined_exec_t'],
      ['/etc/fsfreeze-bridge/fsfreeze-hook.d/10-own', 'virt_qemu_ga_unconfined_exec_t'],
      ['/run/fsfreeze-bridge/freezer.sock', 'virt_qemu_ga_var_run_t'],
      ['/var/run/fsfreeze-bridge', 'virt_qemu_ga_var_run_t'],
    ] as const) {
      expect([path, contextOf(path)]).toEqual([path, gives(type)]);
    }
    expect(contextOf('/usr/lib/fsfreeze-bridge')).toBeUndefined();
  });
});
