// The agent as a real process: channels, clients that misbehave, signals, rest. It never meets the real freezer here: a
// fake one plays its protocol (test/support/fake-freezer.ts), and the program it could start is a trip wire.
import { execa } from 'execa';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { FreezeReport } from '../../src/consistency.js';
import { connectAgent, type AgentClient } from '../support/agent-client.js';
import { FakeFreezer } from '../support/fake-freezer.js';
import { requires } from '../support/requires.js';

const program = new URL('../../dist/cli/agent/main.js', import.meta.url).pathname;

let folder: string;
let freezer: FakeFreezer;
/** What the freezer was asked and did; how long its FIFREEZE takes. */
let asked: string[];
let freezing: { freezeMs: number; syncMs?: number };
const cleanups: (() => Promise<void> | void)[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fsb-agent-'));
  mkdirSync(join(folder, 'run'));
  mkdirSync(join(folder, 'writers'));
  // Whoever starts the freezer program leaves a trace.
  writeFileSync(join(folder, 'freezer'), `#!/bin/sh\necho "$@" >> ${folder}/freezer-started\nexit 1\n`);
  chmodSync(join(folder, 'freezer'), 0o755);
  configure('');
  asked = [];
  freezing = { freezeMs: 1 };
  freezer = await FakeFreezer.listen(
    join(folder, 'run/freezer.sock'),
    Object.assign(freezing, { log: (line: string) => asked.push(line) }),
  );
});

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await freezer.close();
  const started = existsSync(join(folder, 'freezer-started'));
  rmSync(folder, { recursive: true });
  expect(started, 'the freezer program was started').toBe(false);
});

function configure(extra: string): void {
  writeFileSync(
    join(folder, 'conf'),
    `[bridge]\nruntime-dir=${folder}/run\nfreezer=${folder}/freezer\nwriter-folders=${folder}/writers\nlog-level=info\n${extra}\n`,
  );
}

const hostPath = () => join(folder, 'host');
const localPath = () => join(folder, 'run/agent.sock');

interface RunningAgent {
  readonly pid: number;
  kill(signal: NodeJS.Signals): void;
  /** Exit code, or the signal it died of. */
  readonly ended: Promise<number | string | undefined>;
  readonly stderr: () => string;
}

/** @param inside a program that executes its arguments */
function launch(args: readonly string[], inside: readonly string[] = []): RunningAgent {
  if (!existsSync(program)) throw new Error(`${program} is missing: run npm run build first`);
  const [file = '', ...words] = [...inside, process.execPath, program, '-c', join(folder, 'conf'), ...args];
  // As in a unit: no PATH, no HOME, nothing to read.
  const child = execa(file, words, {
    env: {},
    extendEnv: false,
    stdin: 'ignore',
    reject: false,
    cwd: '/',
  });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const ended = child.then(({ exitCode, signal }) => signal ?? exitCode);
  cleanups.push(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  return {
    pid: child.pid ?? 0,
    kill: (signal) => void child.kill(signal),
    ended,
    stderr: () => stderr,
  };
}

const onHostPath = (): readonly string[] => ['-m', 'unix-listen', '-p', hostPath()];

async function start(args = onHostPath(), inside: readonly string[] = []): Promise<RunningAgent> {
  const agent = launch(args, inside);
  await expect.poll(() => agent.stderr(), { timeout: 10_000 }).toContain('"msg":"serving"');
  return agent;
}

async function connect(path = hostPath()): Promise<AgentClient> {
  const client = await connectAgent(path);
  cleanups.push(() => {
    client[Symbol.dispose]();
  });
  return client;
}

/** Seconds of CPU time a process has used, user and system. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test('answers as qemu-ga does, byte for byte', async () => {
  await start();
  const client = await connect();
  client.send('{"execute":"guest-ping"}');
  expect(await client.line()).toBe('{"return": {}}');
  client.send(Buffer.from([0xff]));
  client.send(`{"execute":"guest-sync-delimited","arguments":{"id":9223372036854775807}}`);
  expect(await client.line()).toMatch(/JSON parse error, stray/);
  expect(await client.line()).toBe('\xff{"return": 9223372036854775807}');
  client.send(`{'execute':'guest-ping','id':{'a':[1,'é']}}`);
  expect(await client.line()).toBe('{"return": {}, "id": {"a": [1, "\\u00E9"]}}');
});

test('serves the next client, whatever half a request the last one left', async () => {
  await start();
  const first = await connect();
  first.send('{"execute":"guest-pi');
  await sleep(50);
  first[Symbol.dispose]();
  expect(await (await connect()).call('guest-ping')).toEqual({});
});

test('lets a second client of the host channel wait its turn', async () => {
  await start();
  const first = await connect();
  const second = await connect();
  second.send('{"execute":"guest-ping"}');
  expect(await second.quiet(200)).toBe(true);
  expect(await first.call('guest-ping')).toEqual({});
  first[Symbol.dispose]();
  expect(await second.line()).toBe('{"return": {}}');
});

test('is not wedged by a client that never reads: others are served, and SIGTERM ends it', async () => {
  const agent = await start();
  const deaf = createConnection(hostPath());
  deaf.on('error', () => undefined);
  cleanups.push(() => {
    deaf.destroy();
  });
  await once(deaf, 'connect');
  deaf.pause();
  // More than the sockets' buffers and the agent's queues take.
  deaf.write(`{"execute":"guest-ping","id":"${'x'.repeat(1024 * 1024)}"}`.repeat(24));
  const local = await connect(localPath());
  for (let count = 0; count < 10; count++) {
    expect(await local.call('guest-ping', undefined, 2000)).toEqual({});
    await sleep(50);
  }
  const before = cpuSeconds(agent.pid);
  await sleep(1000);
  expect(cpuSeconds(agent.pid) - before).toBeLessThanOrEqual(0.05);
  const since = Date.now();
  agent.kill('SIGTERM');
  expect(await agent.ended).toBe(0);
  expect(Date.now() - since).toBeLessThan(2500);
});

test('answers ping and info on other sockets while a freeze is under way, and a sync on its own', async () => {
  await start();
  freezing.freezeMs = 2500;
  const host = await connect();
  host.send('{"execute":"guest-fsfreeze-freeze","id":"f"}');
  await expect.poll(() => asked.some((line) => line.startsWith('freeze '))).toBe(true);
  const local = await connect(localPath());
  expect(await local.call('guest-ping', undefined, 1000)).toEqual({});
  expect(await local.call('guest-info', undefined, 1000)).toHaveProperty('version');
  expect(await local.call('bridge-status', undefined, 1000)).toMatchObject({ status: { state: 'freezing' } });
  expect(await host.quiet(100)).toBe(true);
  expect(await host.call('guest-sync', { id: 5 }, 1000)).toBe(5);
  // From here on the late reply of the freeze is never sent, and later commands are answered at once.
  expect(await host.call('guest-fsfreeze-status', undefined, 1000)).toBe('thawed');
  await expect.poll(async () => await host.call('guest-fsfreeze-status'), { timeout: 5000 }).toBe('frozen');
  expect(await host.quiet(200)).toBe(true);
  expect(await host.call('guest-fsfreeze-thaw')).toBeGreaterThan(0);
  expect(freezer.frozen).toEqual([]);
});

/** How soon the local socket is to answer, and what a busy machine may add to one answer of many. */
const PROMPT_MS = 200;
const LATE_MS = 1000;

/** Asks on the local socket, again and again until `over`, and sees how long each answer takes. */
async function expectPrompt(over: () => boolean): Promise<void> {
  const local = await connect(localPath());
  const took: number[] = [];
  while (!over() || took.length < 20) {
    for (const command of ['guest-ping', 'guest-info', 'guest-fsfreeze-status', 'bridge-status']) {
      const asked = performance.now();
      await local.call(command, undefined, 10_000);
      took.push(performance.now() - asked);
    }
    await sleep(10);
  }
  took.sort((a, b) => a - b);
  expect(took[took.length >> 1]).toBeLessThan(PROMPT_MS);
  expect(took.at(-1)).toBeLessThan(LATE_MS);
}

describe('the local socket answers ping, info and status within 200 ms', () => {
  /** A freeze on the host's channel, whose answer comes some time. */
  const freeze = async (): Promise<{ readonly isOver: () => boolean; readonly answered: Promise<unknown> }> => {
    const host = await connect();
    let isOver = false;
    const answered = host.call('guest-fsfreeze-freeze', undefined, 60_000).finally(() => {
      isOver = true;
    });
    answered.catch(() => undefined);
    return { isOver: () => isOver, answered };
  };
  test('while a FIFREEZE takes its time, and while the guest is frozen', async () => {
    freezing.freezeMs = 2000;
    await start();
    const { isOver, answered } = await freeze();
    await expectPrompt(isOver);
    expect(await answered).toBeGreaterThan(0);
    await expectPrompt(() => true);
  });

  test('while a sync hangs', async () => {
    configure('prepare-budget-s=3');
    freezing.syncMs = 60_000;
    await start();
    const { isOver } = await freeze();
    await expect.poll(() => asked.some((line) => line.startsWith('sync '))).toBe(true);
    await expectPrompt(isOver);
  });

  test('while a writer is slow to hold', async () => {
    writeFileSync(join(folder, 'writers/10-app'), '#!/bin/sh\n[ "$1" != freeze ] || /bin/sleep 2\n');
    chmodSync(join(folder, 'writers/10-app'), 0o755);
    await start();
    const { isOver, answered } = await freeze();
    await expectPrompt(isOver);
    expect(await answered).toBeGreaterThan(0);
  });

  test('while the freezer says nothing', async () => {
    await start();
    freezer.silent = true;
    await expectPrompt(() => true);
  });

  // Each of them doubles what is there: 16,384 mounts of one filesystem, as in a guest full of jails.
  requires('root')('in a namespace of 16,384 mounts', () => {
    test('while they are planned, and the first time after they came', async () => {
      const doubling = Array.from({ length: 14 }, (_, turn) => `mkdir m/${turn}; mount --rbind m m/${turn}`).join('; ');
      const setUp = `cd ${folder}; mkdir m; mount --bind m m; ${doubling}; cd /; exec "$@"`;
      await start(onHostPath(), ['/usr/bin/unshare', '-m', '--propagation', 'private', '/bin/sh', '-ec', setUp, 'sh']);
      const { isOver, answered } = await freeze();
      await expectPrompt(isOver);
      expect(await answered).toBeGreaterThan(0);
    }, 120_000);
  });
});

test('lets another host aborting thaw through while a freeze is under way', async () => {
  await start();
  freezing.freezeMs = 60_000;
  const host = await connect();
  host.send('{"execute":"guest-fsfreeze-freeze"}');
  await expect.poll(() => asked.some((line) => line.startsWith('freeze '))).toBe(true);
  expect(await host.call('guest-sync', { id: 1 })).toBe(1);
  expect(await host.call('guest-fsfreeze-thaw', undefined, 8000)).toBe(0);
  expect(await host.call('bridge-status')).toMatchObject({ status: { state: 'idle' }, report: { outcome: 'failed' } });
  expect(await host.quiet(200)).toBe(true);
});

test('counts what it froze and thawed; writers run around it, and the log waits', async () => {
  writeFileSync(join(folder, 'writers/10-app'), `#!/bin/sh\necho "$1" >> ${folder}/app.log\n`);
  chmodSync(join(folder, 'writers/10-app'), 0o755);
  const agent = await start();
  const host = await connect();
  const mounts = (await host.call('guest-get-fsinfo')) as unknown[];
  expect(await host.call('guest-fsfreeze-freeze')).toBe(mounts.length);
  expect(freezer.frozen).toHaveLength(mounts.length);
  const logged = agent.stderr();
  await expect(host.call('guest-get-fsinfo')).rejects.toThrow('Command guest-get-fsinfo has been disabled');
  await sleep(100);
  expect(agent.stderr()).toBe(logged);
  expect(readFileSync(join(folder, 'app.log'), 'utf8')).toBe('freeze\n');
  expect(await host.call('guest-fsfreeze-thaw')).toBe(mounts.length);
  expect(readFileSync(join(folder, 'app.log'), 'utf8')).toBe('freeze\nthaw\n');
  await expect.poll(() => agent.stderr()).toContain('guest-get-fsinfo has been disabled');
});

test('compares mount points of freeze-list exactly, and releases where nothing is frozen', async () => {
  await start();
  const host = await connect();
  expect(await host.call('guest-fsfreeze-freeze-list', { mountpoints: ['/nonexistent', '//'] })).toBe(0);
  expect(await host.call('guest-fsfreeze-status')).toBe('thawed');
  expect(await host.call('guest-fsfreeze-freeze-list', { mountpoints: [] })).toBe(0);
  expect(await host.call('guest-fsfreeze-thaw')).toBe(0);
  expect(freezer.frozen).toEqual([]);
});

test('answers one error after the lease ended, then 0', async () => {
  configure('lease-ms=300');
  await start();
  const host = await connect();
  expect(await host.call('guest-fsfreeze-freeze')).toBeGreaterThan(0);
  await expect.poll(async () => await host.call('guest-fsfreeze-status'), { timeout: 5000 }).toBe('thawed');
  await expect(host.call('guest-fsfreeze-thaw')).rejects.toThrow(
    /GenericError: thawed after 0\.\d s, before the requester asked: the snapshot is not consistent/,
  );
  expect(await host.call('guest-fsfreeze-thaw')).toBe(0);
});

test('tells a manager that asks for the status and sends no thaw by bridge-status and in the log, and drops nothing for it', async () => {
  configure('lease-ms=300');
  const agent = await start();
  const host = await connect();
  const status = async (client = host) => (await client.call('bridge-status')) as { untold: unknown[] };
  expect(await host.call('guest-fsfreeze-freeze')).toBeGreaterThan(0);
  await expect.poll(async () => await host.call('guest-fsfreeze-status'), { timeout: 5000 }).toBe('thawed');
  const first = {
    session: expect.any(String) as string,
    requester: `guest-fsfreeze-freeze on unix-listen ${hostPath()}`,
    reason: expect.stringMatching(
      /^thawed after 0\.\d s, before the requester asked: the snapshot is not consistent$/,
    ) as string,
  };
  // Who asks, on either side, takes nothing from the one who is owed the error.
  const local = await connect(localPath());
  for (const client of [host, local]) {
    expect(await client.call('guest-fsfreeze-status')).toBe('thawed');
    expect(await status(client)).toMatchObject({
      status: { state: 'idle' },
      report: { outcome: 'expired' },
      untold: [first],
    });
  }
  expect(await local.call('guest-fsfreeze-thaw')).toBe(0);
  expect(await status()).toMatchObject({ untold: [first] });
  expect(agent.stderr()).toMatch(/"outcome":"expired".*"msg":"session ended by its lease, before its requester asked"/);

  // The next session: its requester must not be blamed, and the one before is not forgotten.
  expect(await host.call('guest-fsfreeze-freeze')).toBeGreaterThan(0);
  expect(await host.call('guest-fsfreeze-thaw')).toBeGreaterThan(0);
  expect(await status()).toMatchObject({ report: { outcome: 'ok' }, untold: [first] });

  expect(await host.call('guest-fsfreeze-freeze')).toBeGreaterThan(0);
  await expect.poll(async () => await host.call('guest-fsfreeze-status'), { timeout: 5000 }).toBe('thawed');
  expect((await status()).untold).toHaveLength(2);
  await expect(host.call('guest-fsfreeze-thaw')).rejects.toThrow('before the requester asked');
  expect(await host.call('guest-fsfreeze-thaw')).toBe(0);
  expect((await status()).untold).toEqual([first]);
});

test('keeps a session held in the guest from the host, and one of the host over a reconnect', async () => {
  await start();
  const local = await connect(localPath());
  await local.call('bridge-freeze', { session: 'backup-1', requester: 'nightly backup' });
  const host = await connect();
  await expect(host.call('guest-fsfreeze-thaw')).rejects.toThrow(
    'the guest is held by nightly backup (inside the guest, session backup-1): it alone can end that',
  );
  expect(await local.call('bridge-thaw', { session: 'backup-1' })).toMatchObject({ report: { outcome: 'ok' } });

  expect(await host.call('guest-fsfreeze-freeze')).toBeGreaterThan(0);
  host[Symbol.dispose]();
  // Proxmox does so: a closed channel is not the requester's death.
  const again = await connect();
  expect(await again.call('guest-fsfreeze-status')).toBe('frozen');
  expect(await again.call('guest-fsfreeze-thaw')).toBeGreaterThan(0);
});

test('runs a hook given as -F, and tells of a hook that is dropped in and cannot be run', async () => {
  const hook = join(folder, 'my-hook');
  writeFileSync(hook, `#!/bin/sh\necho "$0 $*" >> ${folder}/hook.log\n`);
  chmodSync(hook, 0o755);
  const agent = await start(['-m', 'unix-listen', '-p', hostPath(), `-F${hook}`]);
  const host = await connect();
  await host.call('guest-fsfreeze-freeze');
  await host.call('guest-fsfreeze-thaw');
  expect(readFileSync(join(folder, 'hook.log'), 'utf8')).toMatch(/^\S+ freeze\n\S+ thaw\n$/);
  writeFileSync(join(folder, 'writers/20-bad'), '#!/bin/sh\n');
  chmodSync(join(folder, 'writers/20-bad'), 0o777);
  await expect.poll(() => agent.stderr(), { timeout: 5000 }).toMatch(/20-bad.*writable by others.*will not be run/);
});

test('thaws, releases and ends at SIGTERM', async () => {
  writeFileSync(join(folder, 'writers/10-app'), `#!/bin/sh\necho "$1" >> ${folder}/app.log\n`);
  chmodSync(join(folder, 'writers/10-app'), 0o755);
  const agent = await start();
  const host = await connect();
  await host.call('guest-fsfreeze-freeze');
  const since = Date.now();
  agent.kill('SIGTERM');
  expect(await agent.ended).toBe(0);
  expect(Date.now() - since).toBeLessThan(2000);
  expect(asked).toContain('thaw');
  expect(freezer.frozen).toEqual([]);
  expect(readFileSync(join(folder, 'app.log'), 'utf8')).toBe('freeze\nthaw\n');
  expect(existsSync(localPath())).toBe(false);
  // The host cuts when it will, and thaws then: it must not believe that the guest was held.
  await start();
  const again = await connect();
  await expect(again.call('guest-fsfreeze-thaw')).rejects.toThrow(
    'the agent was stopped while the guest was held: the snapshot is not consistent',
  );
  expect(await again.call('guest-fsfreeze-thaw')).toBe(0);
});

test('is not hurried by a second signal: it thaws and releases all the same', async () => {
  writeFileSync(
    join(folder, 'writers/10-app'),
    `#!/bin/sh\n[ "$1" = freeze ] || sleep 1\necho "$1" >> ${folder}/app.log\n`,
  );
  chmodSync(join(folder, 'writers/10-app'), 0o755);
  const agent = await start();
  await (await connect()).call('guest-fsfreeze-freeze');
  for (const signal of ['SIGTERM', 'SIGTERM', 'SIGUSR1', 'SIGHUP', 'SIGTERM'] as const) {
    agent.kill(signal);
    await sleep(100);
  }
  expect(await agent.ended).toBe(0);
  expect(freezer.frozen).toEqual([]);
  expect(readFileSync(join(folder, 'app.log'), 'utf8')).toBe('freeze\nthaw\n');
});

test.each(['SIGUSR1', 'SIGUSR2'] as const)(
  '%s while frozen thaws and ends it, and opens no debugger',
  async (signal) => {
    const agent = await start();
    await (await connect()).call('guest-fsfreeze-freeze');
    agent.kill(signal);
    expect(await agent.ended).toBe(signal === 'SIGUSR1' ? 138 : 140);
    expect(freezer.frozen).toEqual([]);
    expect(agent.stderr()).not.toContain('Debugger');
  },
);

test('tells in its log of names in block-rpcs and allow-rpcs that no command has, and on a bare stderr nothing', async () => {
  const lists = ['-b', 'guest-exce,guest-exec, guest-file-open', '-b', '', '-a', 'guest-ping,guest-pong'];
  const told = (text: string): unknown[] =>
    text
      .split('\n')
      .filter((line) => line.includes('no such command'))
      .map((line) => {
        const { level, list, name } = JSON.parse(line) as Record<string, unknown>;
        return [level, list, name];
      });
  const all = [
    [40, 'block-rpcs', 'guest-exce'],
    [40, 'block-rpcs', ' guest-file-open'],
    [40, 'allow-rpcs', 'guest-pong'],
  ];
  const loud = await start(['-m', 'unix-listen', '-p', hostPath(), ...lists]);
  expect(told(loud.stderr())).toEqual(all);
  loud.kill('SIGTERM');
  await loud.ended;

  writeFileSync(join(folder, 'conf'), readFileSync(join(folder, 'conf'), 'utf8').replace('log-level=info\n', ''));
  const log = join(folder, 'log');
  const filed = launch(['-m', 'unix-listen', '-p', hostPath(), '-l', log, ...lists]);
  await expect.poll(() => existsSync(log) && readFileSync(log, 'utf8'), { timeout: 10_000 }).toContain('serving');
  expect(told(readFileSync(log, 'utf8'))).toEqual(all);
  expect(filed.stderr()).toBe('');
  filed.kill('SIGTERM');
  await filed.ended;

  const silent = launch(['-m', 'unix-listen', '-p', hostPath(), ...lists]);
  await expect.poll(() => existsSync(hostPath()), { timeout: 10_000 }).toBe(true);
  expect(await (await connect()).call('guest-ping')).toEqual({});
  expect(silent.stderr()).toBe('');
});

test('tells in its log what it was made to run and open, and no more', async () => {
  configure('policy=full');
  const agent = await start();
  const host = await connect();
  const { pid } = (await host.call('guest-exec', {
    path: '/bin/echo',
    arg: ['one', 'two'],
    env: ['SECRET=1'],
    'input-data': Buffer.from('hidden').toString('base64'),
  })) as { pid: number };
  await expect.poll(async () => await host.call('guest-exec-status', { pid })).toMatchObject({ exited: true });
  await host.call('guest-file-open', { path: '/etc/hostname' });
  await host.call('guest-get-host-name');
  // What is not there is asked for, too; what the policy forbids is not run, and told as an error.
  await expect(host.call('guest-file-open', { path: '/nonexistent', mode: 'r' })).rejects.toThrow('failed to open');
  const lines = agent
    .stderr()
    .split('\n')
    .filter((line) => line.includes('"asked for"'))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const channel = `unix-listen ${hostPath()}`;
  expect(lines).toEqual([
    expect.objectContaining({ channel, command: 'guest-exec', path: '/bin/echo', arg: 'one two' }),
    expect.objectContaining({ channel, command: 'guest-file-open', path: '/etc/hostname', mode: 'r' }),
    expect.objectContaining({ channel, command: 'guest-file-open', path: '/nonexistent', mode: 'r' }),
  ]);
  expect(agent.stderr()).not.toMatch(/SECRET|aGlkZGVu|hidden/);
});

test('releases what a predecessor that was killed left held', async () => {
  writeFileSync(join(folder, 'writers/10-app'), `#!/bin/sh\necho "$1 $FSB_OUTCOME" >> ${folder}/app.log\n`);
  chmodSync(join(folder, 'writers/10-app'), 0o755);
  const first = await start();
  await (await connect()).call('guest-fsfreeze-freeze');
  first.kill('SIGKILL');
  expect(await first.ended).toBe('SIGKILL');
  // Its connection closed with it: a real freezer has thawed now.
  await expect.poll(() => freezer.frozen).toEqual([]);
  const second = await start();
  expect(readFileSync(join(folder, 'app.log'), 'utf8')).toMatch(/^freeze.*\nthaw.*\n$/);
  expect(second.stderr()).toContain('a dead agent left this session');
  const host = await connect();
  expect(await host.call('guest-fsfreeze-status')).toBe('thawed');
  await expect(host.call('guest-fsfreeze-thaw')).rejects.toThrow(
    'the agent died while the guest was held: the snapshot is not consistent',
  );
  expect(await host.call('guest-fsfreeze-thaw')).toBe(0);
});

test('breaks a bridge session that a plain thaw ends, and says so to its requester', async () => {
  await start();
  const host = await connect();
  await host.call('bridge-freeze', { session: 'mine' });
  expect(await host.call('guest-fsfreeze-thaw')).toBeGreaterThan(0);
  const { report } = (await host.call('bridge-thaw', { session: 'mine' })) as { report: FreezeReport };
  expect(report).toMatchObject({ outcome: 'broken', level: 'crash' });
  expect(report.error).toMatch(/^ended by guest-fsfreeze-thaw on /);
});

test('rests: no CPU time while nobody asks', async () => {
  const agent = await start();
  await (await connect()).call('guest-ping');
  await sleep(500);
  const before = cpuSeconds(agent.pid);
  await sleep(4000);
  expect(cpuSeconds(agent.pid) - before).toBeLessThanOrEqual(0.04);
});

test('says in one line why it cannot start, with exit code 1', async () => {
  for (const [args, text] of [
    [['-p', join(folder, 'no-port')], `fsfreeze-agent: cannot open ${folder}/no-port: ENOENT`],
    [['-m', 'vsock-listen', '-p', '3:1'], 'vsock-listen: Node cannot open a vsock; enable fsfreeze-agent-vsock.socket'],
    [['-c', '/nonexistent'], 'cannot read /nonexistent: no such file'],
    [['-x'], "invalid option -- 'x'"],
  ] as const) {
    const agent = launch(args);
    expect(await agent.ended).toBe(1);
    const lines = agent
      .stderr()
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('{'));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain(text);
  }
});

test('refuses to be the second agent', async () => {
  await start();
  const second = launch(['-m', 'unix-listen', '-p', join(folder, 'other')]);
  expect(await second.ended).toBe(1);
  expect(second.stderr()).toContain(`cannot listen on ${localPath()}: another program answers there`);
});

requires('socat')('on a character device', () => {
  /** A pseudo terminal whose other end is a unix socket, which stands for the host. */
  async function line(): Promise<{ device: string; host: string; hangUp: () => Promise<void> }> {
    const device = join(folder, 'port');
    const host = join(folder, 'port-host');
    const socat = execa('socat', ['-t0.05', `PTY,link=${device},raw,echo=0`, `UNIX-LISTEN:${host},fork`], {
      stdio: 'ignore',
      reject: false,
    });
    const hangUp = async (): Promise<void> => {
      socat.kill('SIGTERM');
      await socat;
    };
    cleanups.push(hangUp);
    await expect.poll(() => existsSync(device) && existsSync(host)).toBe(true);
    return { device, host, hangUp };
  }

  test('answers without a thread or a busy loop, host after host, and ends at once', async () => {
    const { device, host } = await line();
    const agent = await start(['-p', device]);
    for (let hosts = 0; hosts < 3; hosts++) {
      const client = await connectAgent(host);
      expect(await client.call('guest-ping')).toEqual({});
      client[Symbol.dispose]();
      // The old host's socat still reads the line for a moment.
      await sleep(200);
    }
    const before = cpuSeconds(agent.pid);
    await sleep(3000);
    expect(cpuSeconds(agent.pid) - before).toBeLessThanOrEqual(0.04);
    const since = Date.now();
    agent.kill('SIGTERM');
    expect(await agent.ended).toBe(0);
    expect(Date.now() - since).toBeLessThan(1500);
  });

  test('recovers by 0xFF from half a request that a dead host left', async () => {
    const { device, host } = await line();
    await start(['-p', device]);
    const first = await connectAgent(host);
    first.send('{"execute":"guest-pi');
    await sleep(100);
    first[Symbol.dispose]();
    await sleep(200);
    const second = await connect(host);
    second.send(Buffer.from([0xff]));
    second.send('{"execute":"guest-sync-delimited","arguments":{"id":3}}');
    let reply = await second.line();
    while (!reply.startsWith('\xff')) reply = await second.line();
    expect(reply).toBe('\xff{"return": 3}');
  });

  test('rests while no host is there: a line that has hung up reads end-of-file, as a virtio port then does', async () => {
    const { device, hangUp } = await line();
    const agent = await start(['-p', device]);
    await hangUp();
    await sleep(500);
    const before = cpuSeconds(agent.pid);
    await sleep(4000);
    // Ten looks a second; a busy loop would take four seconds.
    expect(cpuSeconds(agent.pid) - before).toBeLessThanOrEqual(0.08);
    const since = Date.now();
    agent.kill('SIGTERM');
    expect(await agent.ended).toBe(0);
    expect(Date.now() - since).toBeLessThan(1500);
  });

  test('makes an ISA serial line raw before it is read', async () => {
    const { device, host } = await line();
    await execa('stty', ['-F', device, 'echo', 'icanon', 'onlcr', 'opost']);
    await start(['-m', 'isa-serial', '-p', device]);
    const client = await connect(host);
    client.send('{"execute":"guest-ping"}');
    expect(await client.line()).toBe('{"return": {}}');
    const { stdout } = await execa('stty', ['-F', device, '-a']);
    for (const setting of ['38400 baud', '-echo ', '-icanon', '-opost', '-ixon']) expect(stdout).toContain(setting);
  });

  test('finds a port that appears later, with -r', async () => {
    const agent = launch(['-v', '-r', '-p', join(folder, 'port')]);
    await expect.poll(() => agent.stderr(), { timeout: 10_000 }).toContain('trying again');
    const { host } = await line();
    await expect.poll(() => agent.stderr(), { timeout: 10_000 }).toContain('host channel open');
    expect(await (await connect(host)).call('guest-ping')).toEqual({});
  });
});
