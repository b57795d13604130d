import { execa } from 'execa';
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { cached, cacheDirectory, hasUsers, keyOf, markUser, prune } from '../../../src/testing/cache.js';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'fsb-cache-test-'));
  vi.stubEnv('FSB_CACHE_DIR', directory);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true, force: true });
});

test('FSB_CACHE_DIR wins over XDG_CACHE_HOME, which wins over the home directory', () => {
  expect(cacheDirectory()).toBe(directory);
  vi.stubEnv('FSB_CACHE_DIR', '');
  vi.stubEnv('XDG_CACHE_HOME', '/x');
  expect(cacheDirectory()).toBe('/x/fsfreeze-bridge');
  vi.stubEnv('XDG_CACHE_HOME', '');
  vi.stubEnv('HOME', '/home/me');
  expect(cacheDirectory()).toBe('/home/me/.cache/fsfreeze-bridge');
});

test('a key depends on where one part ends and the next begins', () => {
  expect(keyOf('ab', 'c')).not.toBe(keyOf('a', 'bc'));
  expect(keyOf('ab', 'c')).toBe(keyOf('ab', 'c'));
});

test('two builders at once build once, and both get the whole result', async () => {
  let builds = 0;
  const build = async (building: string) => {
    builds++;
    await writeFile(path.join(building, 'first'), '1');
    await new Promise((resolve) => setTimeout(resolve, 200));
    await writeFile(path.join(building, 'last'), '2');
  };
  const both = await Promise.all([cached('states', 'x', 10_000, build), cached('states', 'x', 10_000, build)]);
  expect(builds).toBe(1);
  expect(both).toEqual([path.join(directory, 'states/x'), path.join(directory, 'states/x')]);
  expect((await readdir(both[0])).sort()).toEqual(['first', 'last']);
});

test('a build that fails leaves nothing, and the next one begins anew', async () => {
  const fail = async (building: string) => {
    await writeFile(path.join(building, 'half'), '');
    throw new Error('no space');
  };
  await expect(cached('states', 'x', 10_000, fail)).rejects.toThrow('no space');
  await mkdir(path.join(directory, 'states/.building-x')); // as left by a builder that was killed
  await writeFile(path.join(directory, 'states/.building-x/half'), '');
  const built = await cached('states', 'x', 10_000, async (building) => {
    await writeFile(path.join(building, 'whole'), '');
  });
  expect(await readdir(built)).toEqual(['whole']);
});

test('a lock held by another process is waited for at most as long as told, and ends with its holder', async () => {
  await mkdir(path.join(directory, 'states'));
  const holder = execa(
    'flock',
    ['--no-fork', path.join(directory, 'states/.lock-x'), 'sh', '-c', 'echo locked; sleep 60'],
    {
      reject: false,
      buffer: false,
      detached: true,
    },
  );
  await new Promise((resolve) => holder.stdout.once('data', resolve));
  const build = async (building: string) => {
    await writeFile(path.join(building, 'built'), '');
  };
  await expect(cached('states', 'x', 1000, build)).rejects.toMatchObject({ code: 'E_CACHE_LOCK' });
  process.kill(-(holder.pid ?? 0), 'SIGKILL');
  await holder;
  expect(await readdir(await cached('states', 'x', 10_000, build))).toEqual(['built']);
});

test('pruning keeps the last used and what is in use, and other kinds of names', async () => {
  const states = path.join(directory, 'states');
  for (const [name, usedSecondsAgo] of Object.entries({ 'a-1': 40, 'a-2': 30, 'a-3': 20, 'a-4': 10, 'b-1': 99 })) {
    await mkdir(path.join(states, name), { recursive: true });
    const used = new Date(Date.now() - usedSecondsAgo * 1000);
    await utimes(path.join(states, name), used, used);
  }
  await prune('states', 'a-', 2, async (old) => await Promise.resolve(old.endsWith('a-1')));
  expect((await readdir(states)).sort()).toEqual(['a-1', 'a-3', 'a-4', 'b-1']);
});

test('a mark counts while its QEMU lives, and marks of others do not', async () => {
  await markUser(directory, process.pid); // alive, but no QEMU
  expect(await hasUsers(directory)).toBe(false);
  const qemu = execa('sleep', ['60'], { argv0: 'qemu-system-x86_64', reject: false });
  const unmark = await markUser(directory, qemu.pid ?? 0);
  expect(await hasUsers(directory)).toBe(true);
  expect(await readFile(path.join(directory, 'users', String(qemu.pid)), 'utf8')).toBe('');
  qemu.kill('SIGKILL');
  await qemu;
  expect(await hasUsers(directory)).toBe(false);
  await unmark();
});
