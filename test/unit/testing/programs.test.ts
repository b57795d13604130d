// What the fixture needs of the machine: told before anything slow, and in one table.
import { readdir, readFile, symlink } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { guestImage } from '../../../src/testing/image.js';
import { packagesFor, requirePrograms, type Use } from '../../../src/testing/programs.js';
import { startStallProbe } from '../../../src/testing/stall-probe.js';
import { scratch } from '../../support/scratch.js';

const SOURCES = path.join(import.meta.dirname, '../../../src/testing');
/** Of packages that every Debian has. */
const ALWAYS_THERE = ['cat', 'chmod', 'cp', 'gzip', 'rm', 'sh', 'tar', 'truncate', 'zcat'];

afterEach(() => {
  vi.unstubAllEnvs();
});

test('a program that is missing is named with its package, what it is for, and how to get it', () => {
  using empty = scratch();
  vi.stubEnv('PATH', empty.dir);
  let caught: unknown;
  try {
    requirePrograms('user-mode');
  } catch (error) {
    caught = error;
  }
  expect(caught).toMatchObject({
    code: 'E_PROGRAMS',
    facts: { packages: ['util-linux', 'socat'], programs: ['flock', 'setpriv', 'taskset', 'unshare', 'socat'] },
  });
  expect(String(caught)).toContain(
    'a user-mode guest: not on this machine: flock, setpriv, taskset, unshare (util-linux: ',
  );
  expect(String(caught)).toContain('apt-get install --no-install-recommends util-linux socat');
});

test('an image and a probe that would have to be built are not begun', async () => {
  using little = scratch();
  for (const program of ['flock', 'sh']) await symlink(`/usr/bin/${program}`, little.path(program)); // the cache's lock
  vi.stubEnv('FSB_CACHE_DIR', little.path('cache'));
  vi.stubEnv('PATH', little.dir);
  await expect(guestImage()).rejects.toMatchObject({ code: 'E_PROGRAMS' });
  const guest = { copyIn: vi.fn(), exec: vi.fn(), start: vi.fn() };
  await expect(startStallProbe(guest, ['/'])).rejects.toMatchObject({ code: 'E_PROGRAMS' });
  expect(guest.copyIn).not.toHaveBeenCalled();
});

test('the manual names every package, and for each kind those that it needs', async () => {
  const manual = await readFile(path.join(SOURCES, 'README.md'), 'utf8');
  const namesIn = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);
  const [userMode = '', qemu = ''] = [...manual.matchAll(/Debian packages: (.*)$/gm)].map(([, names = '']) => names);
  const namesOf = (...uses: readonly Use[]): string[] => packagesFor(...uses).map((one) => one.package);
  expect(namesIn(userMode).sort()).toEqual(namesOf('user-mode').sort());
  expect(namesIn(qemu).sort()).toEqual(namesOf('qemu').sort());
  const others = namesOf('image', 'kernel', 'probe').filter((name) => !['apt', 'dpkg', 'util-linux'].includes(name));
  expect(others.filter((name) => !manual.includes(`\`${name}\``))).toEqual([]);
});

test('a user-mode guest needs no QEMU', () => {
  const packages = packagesFor('image', 'kernel', 'user-mode', 'probe').map((one) => one.package);
  expect(packages.filter((name) => name.includes('qemu'))).toEqual([]);
});

test('every program that the fixture starts is in the table', async () => {
  const known = packagesFor('image', 'kernel', 'user-mode', 'qemu', 'probe').flatMap(({ programs }) => programs);
  const started = new Set<string>();
  for (const name of await readdir(SOURCES, { recursive: true })) {
    if (!name.endsWith('.ts')) continue;
    const text = await readFile(path.join(SOURCES, name), 'utf8');
    const calls = text.matchAll(/\b(?:execa|run|spawn|inNamespace)\(\s*'([^']+)'/g);
    for (const [, program = ''] of calls) started.add(program);
  }
  expect([...started]).toEqual(expect.arrayContaining(['mmdebstrap', 'patchelf', 'qemu-img', 'socat']));
  expect([...started].filter((program) => !ALWAYS_THERE.includes(program) && !known.includes(program))).toEqual([]);
});
