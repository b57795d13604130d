// Files and programs by the real agent and by ours: one scenario each, in a folder of its own, and every answer the
// same but for process ids and the folder's name. What may be sent is checked before it goes out: only what reads, the
// folder's own files, and programs of a short list.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { QgaClient } from '../../src/qga/client.js';
import type { CommandName } from '../../src/qga/commands.js';
import { RemoteError } from '../../src/rpc/errors.js';
import { qemuGa, startProgram, type Peer } from './peers.js';

const missing = !existsSync(qemuGa);
if (missing && process.env['FSB_REQUIRED'] === 'all') throw new Error(`${qemuGa} is missing: nothing to compare with`);

const readOnly = [
  ...['guest-sync', 'guest-sync-delimited', 'guest-ping', 'guest-info', 'guest-get-vcpus', 'guest-get-disks'],
  ...['guest-get-memory-blocks', 'guest-get-memory-block-info', 'guest-get-users', 'guest-get-timezone'],
  ...['guest-get-diskstats', 'guest-get-cpustats', 'guest-network-get-interfaces', 'guest-ssh-get-authorized-keys'],
];
const files = ['open', 'close', 'read', 'write', 'seek', 'flush'].map((verb) => `guest-file-${verb}`);
const allowed: ReadonlySet<string> = new Set([...readOnly, ...files, 'guest-exec', 'guest-exec-status']);
const programs: ReadonlySet<unknown> = new Set([
  '/bin/echo',
  'echo',
  '/bin/cat',
  'cat',
  '/usr/bin/env',
  'env',
  '/nope',
  '/tmp',
]);
const scripts: ReadonlySet<unknown> = new Set(['exit 3', 'kill -9 $$', 'echo o; echo e >&2; echo x >/dev/stdout']);
const neverSent = ['guest-fsfreeze-freeze', 'guest-fsfreeze-thaw', 'guest-shutdown', 'guest-set-time', 'guest-fstrim'];

function blockList(): string {
  const all = execFileSync(qemuGa, ['-b', 'help'], { encoding: 'utf8' }).split('\n').filter(Boolean);
  const blocked = all.filter((name) => !allowed.has(name));
  for (const name of neverSent) if (!blocked.includes(name)) throw new Error(`${name} is not blocked: not started`);
  return [...blocked, 'guest-network-get-route', 'guest-get-load'].join(',');
}

interface Side extends AsyncDisposable {
  readonly folder: string;
  /** The answer or `class: desc`, the folder's name as FOLDER. */
  readonly ask: (name: string, args?: Readonly<Record<string, unknown>>) => Promise<unknown>;
}

async function side(start: (blocked: string) => Promise<Peer>): Promise<Side> {
  const peer = await start(blockList());
  const folder = await mkdtemp(join(tmpdir(), 'fsb-commands-'));
  const client = await QgaClient.connect(peer.stream, { timeoutMs: 5000 });
  return {
    folder,
    async ask(name, args = {}) {
      const { path, arg }: { path?: unknown; arg?: unknown } = args;
      const isOurs = typeof path === 'string' && (path === folder || path.startsWith(`${folder}/`));
      const isScript = path === '/bin/sh' && Array.isArray(arg) && scripts.has(arg[1]);
      if (!allowed.has(name) || (path !== undefined && !isOurs && !isScript && !programs.has(path))) {
        throw new Error(`refused to send ${name} ${JSON.stringify(args)}`);
      }
      try {
        // What is wrong is sent, too.
        return await client.call(name as CommandName, args, { timeoutMs: 10_000 });
      } catch (error) {
        if (!(error instanceof RemoteError)) throw error;
        return `${error.class}: ${error.desc.replaceAll(folder, 'FOLDER')}`;
      }
    },
    async [Symbol.asyncDispose]() {
      await client.close();
      await peer[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    },
  };
}

const real = (blocked: string) => startProgram(qemuGa, [], () => Promise.resolve(['-b', blocked]));
const ours = (blocked: string) =>
  startProgram(
    process.execPath,
    [fileURLToPath(new URL('../../dist/cli/agent/main.js', import.meta.url))],
    async (folder) => {
      const configuration = join(folder, 'qemu-ga.conf');
      const own = [`runtime-dir=${folder}`, 'freezer=/bin/false', 'local-socket=none', `writer-folders=${folder}/none`];
      await writeFile(configuration, `[bridge]\npolicy=full\n${own.join('\n')}\n`);
      return ['--compat=7.2', '-c', configuration, '-b', blocked];
    },
  );

const b64 = (text: string): string => Buffer.from(text).toString('base64');

/** A file written, read, sought in: `[command, arguments]`, handles as they come. */
const fileSteps = (folder: string): readonly (readonly [string, Readonly<Record<string, unknown>>])[] => {
  const path = `${folder}/file`;
  const seek = (handle: number, offset: number | bigint, whence: unknown) =>
    ['seek', { handle, offset, whence }] as const;
  return [
    ['open', { path: `${folder}/none` }],
    ['open', { path, mode: 'zz' }],
    ['open', { path: folder, mode: 'w' }],
    ['open', { path, mode: 'w+' }],
    ['write', { handle: 1000, 'buf-b64': '!!!' }],
    ['write', { handle: 1000, 'buf-b64': 'abc' }],
    ['write', { handle: 1000, 'buf-b64': b64('hello world') }],
    ['write', { handle: 1000, 'buf-b64': b64('hello world'), count: 5 }],
    ['write', { handle: 1000, 'buf-b64': b64('hello world'), count: 50 }],
    ['write', { handle: 1000, 'buf-b64': b64('hello world'), count: -1 }],
    ['flush', { handle: 1000 }],
    ['read', { handle: 1000 }],
    seek(1000, 0, 0),
    ['read', { handle: 1000, count: 3 }],
    ['read', { handle: 1000, count: 0 }],
    ['read', { handle: 1000, count: -1 }],
    ['read', { handle: 1000, count: 48 * 1024 * 1024 + 1 }],
    ['read', { handle: 1000, count: 9223372036854775807n }],
    ['read', { handle: 1000, count: 48 * 1024 * 1024 }],
    ['read', { handle: 1000 }],
    seek(1000, -3, 'end'),
    seek(1000, 1, 'cur'),
    ['read', { handle: 1000 }],
    seek(1000, -300, 'end'),
    seek(1000, 3, 7),
    seek(1000, 3, 'bad'),
    seek(1000, 3, true),
    seek(1000, 100, 'set'),
    ['read', { handle: 1000 }],
    ['close', { handle: 1000 }],
    ['close', { handle: 1000 }],
    ['read', { handle: 5 }],
    ['open', { path: folder }],
    ['read', { handle: 1001 }],
    ['close', { handle: 1001 }],
    ['open', { path, mode: 'rb' }],
    ['write', { handle: 1002, 'buf-b64': b64('x') }],
    ['read', { handle: 1002, count: 6 }],
    ['close', { handle: 1002 }],
    ['open', { path, mode: 'a' }],
    seek(1003, 0, 1),
    ['write', { handle: 1003, 'buf-b64': b64('x') }],
    seek(1003, 0, 1),
    ['read', { handle: 1003 }],
    ['close', { handle: 1003 }],
  ];
};

const capture = { 'capture-output': true };
const execSteps: readonly Readonly<Record<string, unknown>>[] = [
  { path: '/bin/echo', arg: ['hi'], ...capture },
  { path: '/bin/echo', arg: ['hi'] },
  { path: '/bin/echo', arg: ['hi'], 'capture-output': false },
  { path: 'echo', arg: ['hi'], env: ['A=b'], ...capture },
  { path: 'env', env: ['A=b', 'PATH=/nonexistent'], ...capture },
  { path: '/usr/bin/env', env: ['A=b', 'C=d=e'], ...capture },
  { path: '/usr/bin/env', env: [], ...capture },
  { path: '/bin/cat', 'input-data': b64('in'), ...capture },
  { path: '/bin/cat', 'input-data': '', ...capture },
  { path: '/bin/cat', ...capture },
  { path: '/bin/cat', 'input-data': '!!', ...capture },
  { path: '/nope' },
  { path: '/tmp', ...capture },
  { path: '/bin/sh', arg: ['-c', 'exit 3'], ...capture },
  { path: '/bin/sh', arg: ['-c', 'kill -9 $$'], ...capture },
  { path: '/bin/sh', arg: ['-c', 'echo o; echo e >&2; echo x >/dev/stdout'], ...capture },
  { path: '/bin/echo', 'capture-output': 'merged' },
];

async function runToEnd({ ask }: Side, step: Readonly<Record<string, unknown>>): Promise<unknown> {
  const started = await ask('guest-exec', step);
  if (typeof started === 'string') return started;
  const args = { pid: (started as { pid: number }).pid };
  for (let tries = 0; tries < 200; tries++) {
    const status = (await ask('guest-exec-status', args)) as { exited: boolean };
    if (status.exited) return [status, await ask('guest-exec-status', args)];
    await sleep(25);
  }
  throw new Error(`${JSON.stringify(step)} did not end within 5 s`);
}

/** Lists in an order of their own; numbers of counters, and serials, which udev tells there and sysfs here, left out. */
function settled(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(settled).sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)));
  }
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => name !== 'serial' && !name.startsWith('bridge-'))
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([name, member]) => [name, isCounter(name) ? 0 : settled(member)]),
  );
}

const counters = /^(stats|statistics)$|^(user|nice|system|idle|iowait|irq|softirq|steal|guest|guestnice)$/;
const isCounter = (name: string): boolean => counters.test(name);

describe.skipIf(missing)(`files and programs as ${qemuGa} has them${missing ? ' (not installed)' : ''}`, () => {
  let theirs: Side;
  let own: Side;
  beforeAll(async () => {
    theirs = await side(real);
    own = await side(ours);
  });
  afterAll(async () => {
    await theirs[Symbol.asyncDispose]();
    await own[Symbol.asyncDispose]();
  });

  test('every answer about a file is the same', async () => {
    const expectedSteps = fileSteps(theirs.folder);
    for (const [index, [verb, args]] of fileSteps(own.folder).entries()) {
      const expected = await theirs.ask(`guest-file-${verb}`, expectedSteps[index]?.[1]);
      expect(await own.ask(`guest-file-${verb}`, args), `${verb} ${JSON.stringify(args, withBigInts)}`).toEqual(
        expected,
      );
    }
  });

  test.each(execSteps.map((step) => [JSON.stringify(step), step] as const))('guest-exec %s', async (_name, step) => {
    expect(await runToEnd(own, step)).toEqual(await runToEnd(theirs, step));
  });

  test.each(readOnly.filter((name) => /get/.test(name) && !name.includes('ssh')))('%s', async (name) => {
    expect(settled(await own.ask(name))).toEqual(settled(await theirs.ask(name)));
  });

  test('guest-info lists the same commands, in the same order', async () => {
    const names = async ({ ask }: Side) =>
      ((await ask('guest-info')) as { supported_commands: { name: string }[] }).supported_commands.filter(
        ({ name }) => !name.startsWith('bridge-'),
      );
    expect(await names(own)).toEqual(await names(theirs));
  });

  test('nothing else can be sent', async () => {
    for (const [name, args] of [
      ['guest-fsfreeze-freeze', {}],
      ['guest-shutdown', {}],
      ['guest-file-open', { path: '/etc/passwd' }],
      ['guest-exec', { path: '/bin/sh', arg: ['-c', 'true'] }],
    ] as const) {
      await expect(theirs.ask(name, args)).rejects.toThrow('refused to send');
    }
  });
});

const withBigInts = (_name: string, value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value);
