// The agent in process, on sockets of its own, over a coordinator that is played by the test.
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { startAgent, type AgentOptions } from '../../../src/agent/agent.js';
import type { FreezeReport } from '../../../src/consistency.js';
import type { CoordinatorOptions, LocalCoordinator, LocalSession } from '../../../src/freeze/options.js';
import { connectAgent } from '../../support/agent-client.js';
import { agentInProcess } from '../../support/agent-in-process.js';

const agent = agentInProcess();
beforeEach(() => {
  hangs = false;
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
          closeSections: () => Promise.resolve(),
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
      complete: (id, outcome) => Promise.resolve({ session: id, outcome, writers: [] }),
      kept: [],
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

async function start(options: Partial<AgentOptions> = {}, count = 3): Promise<string[]> {
  const calls: string[] = [];
  await agent.start({ createCoordinator: played(count, calls), ...options });
  return calls;
}

describe('the agent', () => {
  test('answers on the host channel and on the local socket', async () => {
    await start();
    expect(await (await agent.connect('host')).call('guest-ping')).toEqual({});
    expect(await (await agent.connect('local')).call('guest-ping')).toEqual({});
    expect(await (await agent.connect('local')).call('guest-sync', { id: 7 })).toBe(7);
  });

  test('keeps the lists to the host: the local socket is the administrator', async () => {
    await start({ blockRpcs: ['guest-get-osinfo'] });
    const host = await agent.connect('host');
    await expect(host.call('guest-get-osinfo')).rejects.toThrow(
      'CommandNotFound: Command guest-get-osinfo has been disabled: the command is not allowed',
    );
    const info = (await host.call('guest-info')) as { supported_commands: { name: string; enabled: boolean }[] };
    expect(info.supported_commands.find(({ name }) => name === 'guest-get-osinfo')?.enabled).toBe(false);
    expect(await (await agent.connect('local')).call('guest-get-osinfo')).toHaveProperty('kernel-release');
  });

  test('runs only what may run while frozen, on every channel, and says so as each release does', async () => {
    for (const [compat, text] of [
      ['10.2', 'the command is not allowed'],
      ['7.2', 'the agent is in frozen state'],
    ] as const) {
      await start({ compat, allowRpcs: ['guest-fsfreeze-freeze'] });
      const host = await agent.connect('host');
      expect(await host.call('guest-fsfreeze-freeze')).toBe(3);
      expect(await host.call('guest-fsfreeze-status')).toBe('frozen');
      expect(await host.call('guest-ping')).toEqual({});
      await expect(host.call('guest-get-host-name')).rejects.toThrow(text);
      // Others are told who holds it.
      await expect((await agent.connect('local')).call('guest-get-host-name')).rejects.toThrow(
        'Command guest-get-host-name has been disabled: the guest is held by guest-fsfreeze-freeze on unix-listen',
      );
      expect(await host.call('guest-fsfreeze-thaw')).toBe(3);
      expect(await (await agent.connect('local')).call('guest-get-host-name')).toHaveProperty('host-name');
      agent.disconnect();
      await agent.stop();
    }
  });

  test('logs into memory alone while frozen', async () => {
    await start();
    const host = await agent.connect('host');
    await host.call('guest-fsfreeze-freeze');
    const before = agent.log();
    await expect(host.call('nope')).rejects.toThrow('has not been found');
    expect(agent.log()).toBe(before);
    await host.call('guest-fsfreeze-thaw');
    const after = agent.log().slice(before.length);
    expect(after).toMatch(/The command nope has not been found.*\n.*session ended/);
  });

  test('logs into memory alone while a filesystem hangs after the session ended, and lets commands go on', async () => {
    hangs = true;
    await start();
    const host = await agent.connect('host');
    const before = agent.log();
    await host.call('guest-fsfreeze-freeze');
    await host.call('guest-fsfreeze-thaw');
    expect(await host.call('guest-get-host-name')).toHaveProperty('host-name');
    await expect(host.call('nope')).rejects.toThrow('has not been found');
    expect(agent.log()).toBe(before);
    writable();
    expect(agent.log()).toMatch(/session ended.*\n.*The command nope/);
  });

  test('releases a session in which nothing could be frozen', async () => {
    const calls = await start({}, 0);
    const host = await agent.connect('host');
    expect(await host.call('guest-fsfreeze-freeze')).toBe(0);
    expect(calls).toEqual(['warmUp', 'freeze plain 60000', 'thaw']);
    expect(await host.call('guest-fsfreeze-status')).toBe('thawed');
    expect(await host.call('guest-fsfreeze-thaw')).toBe(0);
  });

  test('gives a bridge session its own lease and level, and its report', async () => {
    const calls = await start();
    const host = await agent.connect('host');
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
    agent.logger.hold();
    await start({ recovered });
    const host = await agent.connect('host');
    await host.call('guest-fsfreeze-freeze').catch(() => undefined);
    await host.call('guest-fsfreeze-thaw').catch(() => undefined);
    expect(agent.log()).toBe('');
    thaw();
    await recovered;
    expect(agent.log()).toContain('serving');
  });

  test('does not write the log when it ends while something may be frozen', async () => {
    agent.logger.hold();
    await start({ recovered: new Promise<void>(() => undefined) });
    await agent.stop();
    expect(agent.log()).toBe('');
  });

  test('owes the host what its predecessor could not say, once', async () => {
    mkdirSync(join(agent.folder, 'run'));
    writeFileSync(join(agent.folder, 'run/owed'), 'the agent died\n');
    await start();
    const host = await agent.connect('host');
    expect(await (await agent.connect('local')).call('guest-fsfreeze-thaw')).toBe(0);
    await expect(host.call('guest-fsfreeze-thaw')).rejects.toThrow('the agent died');
    expect(existsSync(join(agent.folder, 'run/owed'))).toBe(false);
    expect(await host.call('guest-fsfreeze-thaw')).toBe(0);
  });

  test('leaves what the host is still owed to its successor', async () => {
    mkdirSync(join(agent.folder, 'run'));
    writeFileSync(join(agent.folder, 'run/owed'), 'the agent died\n');
    await start();
    await agent.stop();
    expect(readFileSync(join(agent.folder, 'run/owed'), 'utf8')).toBe('the agent died\n');
  });

  test('does not log the byte with which every client begins', async () => {
    await start();
    const host = await agent.connect('host');
    await expect(host.call('nope')).rejects.toThrow('has not been found');
    host.send(Buffer.from([0xff]));
    expect(await host.line()).toContain('JSON parse error');
    const log = agent.log();
    expect(log).toContain('The command nope has not been found');
    expect(log).not.toContain('JSON parse error');
  });

  test("has a socket in the guest that is root's alone, whose clients are holders of their own", async () => {
    const calls = await start();
    const path = join(agent.folder, 'agent-root.sock');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    using root = await connectAgent(path);
    const [local, host] = [await agent.connect('local'), await agent.connect('host')];
    for (const client of [local, host])
      await expect(client.call('bridge-critical', { session: 's1', on: true })).rejects.toThrow(
        "expected a requester on the socket that is root's alone",
      );
    await root.call('bridge-freeze', { session: 's1', require: 'crash', 'ends-with-channel': true });
    expect(await root.call('bridge-critical', { session: 's1', on: true })).toEqual({});
    await expect(local.call('bridge-thaw', { session: 's1' })).rejects.toThrow('the guest is held by');
    root.socket.destroy();
    await expect.poll(() => calls.at(-1)).toBe('thaw');
    expect(calls.at(-2)).toBe('break off: its requester ended the connection');
  });

  test('without a host serves the programs in the guest alone, and without a local socket no one there', async () => {
    await start({ channel: { method: 'none', retry: false } });
    expect(existsSync(join(agent.folder, 'host'))).toBe(false);
    expect(await (await agent.connect('local')).call('guest-ping')).toEqual({});
    await agent.stop();
    const { folder, logger } = agent;
    const alone = await startAgent({
      ...{ compat: '10.2', blockRpcs: [], allowRpcs: [], plainLeaseMs: 1, runtimeDir: join(folder, 'run') },
      ...{ writerFolders: [], logger, createCoordinator: played(0, []) },
      channel: { method: 'unix-listen', path: join(folder, 'host'), retry: false },
    });
    expect(existsSync(join(folder, 'agent-root.sock'))).toBe(false);
    await alone.stop();
  });

  test('thaws before it closes its channels', async () => {
    const calls = await start();
    await agent.connect('local');
    await agent.stop();
    expect(calls).toEqual(['warmUp', 'close']);
    await expect(connectAgent(join(agent.folder, 'local'))).rejects.toThrow();
  });

  test('leaves nothing behind if a channel cannot be opened', async () => {
    const path = join(agent.folder, 'none', 'host');
    await expect(start({ channel: { method: 'unix-listen', path, retry: false } })).rejects.toThrow(
      `cannot listen on ${path}: its folder does not exist`,
    );
    expect(existsSync(join(agent.folder, 'local'))).toBe(false);
    const port = join(agent.folder, 'port');
    await expect(start({ channel: { method: 'virtio-serial', path: port, retry: false } })).rejects.toThrow(
      `cannot open ${port}: ENOENT`,
    );
  });
});
