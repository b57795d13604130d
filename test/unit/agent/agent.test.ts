// The agent in process, on sockets of its own, over a coordinator that is played by the test.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startAgent, type Agent, type AgentOptions } from '../../../src/agent/agent.js';
import type { FreezeReport } from '../../../src/consistency.js';
import type { CoordinatorOptions, LocalCoordinator, LocalSession } from '../../../src/freeze/options.js';
import { createLogger, type HeldLogger } from '../../../src/log.js';
import { connectAgent, type AgentClient } from '../../support/agent-client.js';

let folder: string;
let agent: Agent | undefined;
let logger: HeldLogger;
let clients: AgentClient[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fsb-agent-'));
  logger = createLogger('info', join(folder, 'log'));
  clients = [];
  hangs = false;
});
afterEach(async () => {
  for (const client of clients) client[Symbol.dispose]();
  await agent?.stop();
  agent = undefined;
  logger.close();
  rmSync(folder, { recursive: true });
});

const report: FreezeReport = {
  session: 's1',
  requester: 'r',
  state: 'thawed',
  outcome: 'ok',
  level: 'filesystem',
  evidence: [],
  filesystems: [],
  writers: [],
  skipped: [],
  steps: [],
  leaseMs: 1,
  pauseWindowMs: 2,
  frozenWindowMs: 1,
};

type Wiring = Pick<CoordinatorOptions, 'log' | 'onHold' | 'onReleased' | 'onWritable'>;

/** Tells the agent that nothing hangs any more, where `hangs` was set before. */
let writable: () => void;
let hangs: boolean;

/** Freezes at once; `count` filesystems. */
function played(count: number, calls: string[]): (wiring: Wiring) => LocalCoordinator {
  return (wiring) => {
    writable = () => {
      wiring.onWritable?.('s1');
    };
    let session: LocalSession | undefined;
    return {
      get session() {
        return session;
      },
      lastReport: undefined,
      freeze(request) {
        calls.push(`freeze ${request.require} ${request.leaseMs}`);
        wiring.onHold?.('s1');
        session = {
          id: 's1',
          requester: request.requester,
          report: { ...report, state: 'frozen' },
          frozenCount: count,
          thawedCount: count,
          holdsWriters: false,
          remainingMs: 1,
          ended: new Promise(() => undefined),
          thawed: new Promise(() => undefined),
          breakOff(reason) {
            calls.push(`break off: ${reason}`);
            return this.thaw();
          },
          renew: (remainingMs) => Promise.resolve({ remainingMs }),
          critical: () => Promise.resolve(),
          thaw() {
            calls.push('thaw');
            session = undefined;
            wiring.onReleased?.(report, false);
            if (!hangs) writable();
            return Promise.resolve(report);
          },
        };
        return Promise.resolve(session);
      },
      status: () => Promise.resolve({ state: session === undefined ? 'idle' : 'frozen' }),
      writers: () => Promise.resolve([]),
      hungFilesystems: () => Promise.resolve([]),
      unreleased: [],
      warmUp() {
        calls.push('warmUp');
        return Promise.resolve();
      },
      close() {
        calls.push('close');
        return Promise.resolve();
      },
    };
  };
}

async function start(over: Partial<AgentOptions> = {}, count = 3): Promise<string[]> {
  const calls: string[] = [];
  agent = await startAgent({
    channel: { method: 'unix-listen', path: join(folder, 'host'), retry: false },
    localSocket: join(folder, 'local'),
    compat: '10.2',
    blockRpcs: [],
    allowRpcs: [],
    plainLeaseMs: 60_000,
    runtimeDir: join(folder, 'run'),
    writerFolders: [],
    logger,
    createCoordinator: played(count, calls),
    ...over,
  });
  return calls;
}
const connect = async (name: 'host' | 'local'): Promise<AgentClient> => {
  const client = await connectAgent(join(folder, name));
  clients.push(client);
  return client;
};

describe('the agent', () => {
  test('answers on the host channel and on the local socket', async () => {
    await start();
    expect(await (await connect('host')).call('guest-ping')).toEqual({});
    expect(await (await connect('local')).call('guest-ping')).toEqual({});
    expect(await (await connect('local')).call('guest-sync', { id: 7 })).toBe(7);
  });

  test('keeps the lists to the host: the local socket is the administrator', async () => {
    await start({ blockRpcs: ['guest-get-osinfo'] });
    const host = await connect('host');
    await expect(host.call('guest-get-osinfo')).rejects.toThrow(
      'CommandNotFound: Command guest-get-osinfo has been disabled: the command is not allowed',
    );
    const info = (await host.call('guest-info')) as { supported_commands: { name: string; enabled: boolean }[] };
    expect(info.supported_commands.find(({ name }) => name === 'guest-get-osinfo')?.enabled).toBe(false);
    expect(await (await connect('local')).call('guest-get-osinfo')).toHaveProperty('kernel-release');
  });

  test('runs only what may run while frozen, on every channel, and says so as each release does', async () => {
    for (const [compat, text] of [
      ['10.2', 'the command is not allowed'],
      ['7.2', 'the agent is in frozen state'],
    ] as const) {
      await start({ compat, allowRpcs: ['guest-fsfreeze-freeze'] });
      const host = await connect('host');
      expect(await host.call('guest-fsfreeze-freeze')).toBe(3);
      expect(await host.call('guest-fsfreeze-status')).toBe('frozen');
      expect(await host.call('guest-ping')).toEqual({});
      for (const client of [host, await connect('local')]) {
        await expect(client.call('guest-get-host-name')).rejects.toThrow(text);
      }
      expect(await host.call('guest-fsfreeze-thaw')).toBe(3);
      expect(await (await connect('local')).call('guest-get-host-name')).toHaveProperty('host-name');
      for (const client of clients.splice(0)) client[Symbol.dispose]();
      await agent?.stop();
    }
  });

  test('logs into memory alone while frozen', async () => {
    await start();
    const host = await connect('host');
    await host.call('guest-fsfreeze-freeze');
    const before = readFileSync(join(folder, 'log'), 'utf8');
    await expect(host.call('nope')).rejects.toThrow('has not been found');
    expect(readFileSync(join(folder, 'log'), 'utf8')).toBe(before);
    await host.call('guest-fsfreeze-thaw');
    const after = readFileSync(join(folder, 'log'), 'utf8').slice(before.length);
    expect(after).toMatch(/The command nope has not been found.*\n.*session ended/);
  });

  test('logs into memory alone while a filesystem hangs after the session ended, and lets commands go on', async () => {
    hangs = true;
    await start();
    const host = await connect('host');
    const before = readFileSync(join(folder, 'log'), 'utf8');
    await host.call('guest-fsfreeze-freeze');
    await host.call('guest-fsfreeze-thaw');
    expect(await host.call('guest-get-host-name')).toHaveProperty('host-name');
    await expect(host.call('nope')).rejects.toThrow('has not been found');
    expect(readFileSync(join(folder, 'log'), 'utf8')).toBe(before);
    writable();
    expect(readFileSync(join(folder, 'log'), 'utf8')).toMatch(/session ended.*\n.*The command nope/);
  });

  test('releases a session in which nothing could be frozen', async () => {
    const calls = await start({}, 0);
    const host = await connect('host');
    expect(await host.call('guest-fsfreeze-freeze')).toBe(0);
    expect(calls).toEqual(['warmUp', 'freeze plain 60000', 'thaw']);
    expect(await host.call('guest-fsfreeze-status')).toBe('thawed');
    expect(await host.call('guest-fsfreeze-thaw')).toBe(0);
  });

  test('gives a bridge session its own lease and level, and its report', async () => {
    const calls = await start();
    const host = await connect('host');
    const frozen = (await host.call('bridge-freeze', { require: 'application' })) as { report: FreezeReport };
    expect(frozen.report.state).toBe('frozen');
    expect(calls).toEqual(['warmUp', 'freeze application 10000']);
    expect(await host.call('bridge-renew', { session: 's1', 'lease-ms': 9000 })).toEqual({ 'remaining-ms': 9000 });
    expect(await host.call('bridge-thaw', { session: 's1' })).toEqual({ report });
    // A lost reply can be asked for again.
    expect(await host.call('bridge-thaw', { session: 's1' })).toEqual({ report });
  });

  test('holds the log until what a predecessor left is thawed, whatever session ends meanwhile', async () => {
    let thaw: () => void = () => undefined;
    const recovered = new Promise<void>((resolve) => {
      thaw = resolve;
    });
    logger.hold();
    await start({ recovered });
    const host = await connect('host');
    await host.call('guest-fsfreeze-freeze').catch(() => undefined);
    await host.call('guest-fsfreeze-thaw').catch(() => undefined);
    expect(readFileSync(join(folder, 'log'), 'utf8')).toBe('');
    thaw();
    await recovered;
    expect(readFileSync(join(folder, 'log'), 'utf8')).toContain('serving');
  });

  test('does not write the log when it ends while something may be frozen', async () => {
    logger.hold();
    await start({ recovered: new Promise<void>(() => undefined) });
    await agent?.stop();
    agent = undefined;
    expect(readFileSync(join(folder, 'log'), 'utf8')).toBe('');
  });

  test('owes the host what its predecessor could not say, once', async () => {
    mkdirSync(join(folder, 'run'));
    writeFileSync(join(folder, 'run/owed'), 'the agent died\n');
    await start();
    const host = await connect('host');
    expect(await (await connect('local')).call('guest-fsfreeze-thaw')).toBe(0);
    await expect(host.call('guest-fsfreeze-thaw')).rejects.toThrow('the agent died');
    expect(existsSync(join(folder, 'run/owed'))).toBe(false);
    expect(await host.call('guest-fsfreeze-thaw')).toBe(0);
  });

  test('leaves what the host is still owed to its successor', async () => {
    mkdirSync(join(folder, 'run'));
    writeFileSync(join(folder, 'run/owed'), 'the agent died\n');
    await start();
    await agent?.stop();
    agent = undefined;
    expect(readFileSync(join(folder, 'run/owed'), 'utf8')).toBe('the agent died\n');
  });

  test('does not log the byte with which every client begins', async () => {
    await start();
    const host = await connect('host');
    await expect(host.call('nope')).rejects.toThrow('has not been found');
    host.send(Buffer.from([0xff]));
    expect(await host.line()).toContain('JSON parse error');
    const log = readFileSync(join(folder, 'log'), 'utf8');
    expect(log).toContain('The command nope has not been found');
    expect(log).not.toContain('JSON parse error');
  });

  test('thaws before it closes its channels', async () => {
    const calls = await start();
    await connect('local');
    await agent?.stop();
    expect(calls).toEqual(['warmUp', 'close']);
    await expect(connectAgent(join(folder, 'local'))).rejects.toThrow();
    agent = undefined;
  });

  test('leaves nothing behind if a channel cannot be opened', async () => {
    const path = join(folder, 'none', 'host');
    await expect(start({ channel: { method: 'unix-listen', path, retry: false } })).rejects.toThrow(
      `cannot listen on ${path}: its folder does not exist`,
    );
    expect(existsSync(join(folder, 'local'))).toBe(false);
    const port = join(folder, 'port');
    await expect(start({ channel: { method: 'virtio-serial', path: port, retry: false } })).rejects.toThrow(
      `cannot open ${port}: ENOENT`,
    );
  });
});
