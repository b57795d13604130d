// Requesters inside the guest on the agent's own sockets: the agent, the real freezer and real FIFREEZE of loop images
// in a private mount namespace. Who may end what, and what becomes of a session whose requester is killed.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { startAgent, type Agent } from '../../src/agent/agent.js';
import type { FreezeReport } from '../../src/consistency.js';
import { defined } from '../../src/defined.js';
import { createCoordinator } from '../../src/freeze/coordinator.js';
import { connectToSocket } from '../../src/freeze/freezer/client.js';
import { createLogger } from '../../src/log.js';
import { connectAgent, type AgentClient } from '../support/agent-client.js';
import { described } from '../support/freeze-harness.js';
import { insideRequester, type InsideRequester } from '../support/inside-requester.js';
import { tableOf } from '../support/mount-table.js';
import { privateMounts, type PrivateMounts } from '../support/private-mounts.js';
import { requires } from '../support/requires.js';

const BOUND_MS = 240_000;
const noEvents = { onExpired() {}, onThawed() {}, onLost() {} };

requires(
  'root',
  'loop',
  'gcc',
  'make',
  'unshare',
  'nsenter',
  'busybox',
  'mkfs.ext4',
  'mkfs.xfs',
)('a requester inside the guest', () => {
  let mounts: PrivateMounts;
  let folder: string;
  let agent: Agent;
  const clients: (AgentClient | InsideRequester)[] = [];
  const run = (): string => join(mounts.shared, 'run');
  const socketOf = (name: 'host' | 'agent.sock' | 'agent-root.sock'): string => join(folder, name);

  beforeAll(async () => {
    mounts = await privateMounts({ filesystems: { one: 'ext4', two: 'xfs' }, boundMs: BOUND_MS });
    const devices = tableOf(readFileSync(mounts.outside.mountinfoPath)).filesystems.map(({ device }) => device);
    expect(devices.filter((device) => !device.startsWith('7:'))).toEqual([]);
  });
  afterAll(async () => {
    await mounts[Symbol.asyncDispose]();
  });

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'fsb-inside-'));
    mkdirSync(join(run(), 'hooks'), { recursive: true, mode: 0o755 });
    const logger = createLogger('info', join(folder, 'log'));
    agent = await startAgent({
      channel: { method: 'unix-listen', path: socketOf('host'), retry: false },
      localSocket: socketOf('agent.sock'),
      compat: '10.2',
      blockRpcs: [],
      allowRpcs: [],
      plainLeaseMs: 60_000,
      runtimeDir: run(),
      writerFolders: [],
      logger,
      // The agent's own view is this machine's: it is left out.
      createCoordinator: ({ log, onHold, onReleased, onWritable }) =>
        createCoordinator({
          ...defined({ log, onHold, onReleased, onWritable }),
          ...{ runtimeDir: run(), expediteRcu: false, ...mounts.outside },
          writerFolders: [{ path: join(run(), 'hooks'), style: 'bridge' }],
        }),
    });
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client[Symbol.dispose]();
    await agent.stop();
    const freezer = await connectToSocket(join(run(), 'freezer.sock'), noEvents).catch(() => undefined);
    const pid = (await freezer?.hello())?.pid;
    freezer?.close();
    if (pid !== undefined) {
      process.kill(pid, 'SIGTERM');
      await expect.poll(() => existsSync(join(run(), 'freezer.sock'))).toBe(false);
    }
    rmSync(run(), { recursive: true });
    rmSync(folder, { recursive: true });
  });

  const connect = async (name: Parameters<typeof socketOf>[0]): Promise<AgentClient> => {
    const client = await connectAgent(socketOf(name));
    clients.push(client);
    return client;
  };
  const requester = (name: Parameters<typeof socketOf>[0] = 'agent-root.sock'): InsideRequester => {
    const one = insideRequester(socketOf(name));
    clients.push(one);
    return one;
  };
  const ask = (session: string, more: object = {}): object => ({
    ...{ session, requester: 'restic', require: 'filesystem', 'lease-ms': 20_000 },
    ...more,
  });
  const hook = (name: string, body: string): void => {
    writeFileSync(join(run(), 'hooks', name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  };
  /** Milliseconds until a write goes through there; undefined: not within the limit. */
  const written = async (name: string, limitMs: number): Promise<number | undefined> => {
    const [command, words] = mounts.inside('/bin/busybox', 'touch', `/mnt/${name}/probe`);
    const began = performance.now();
    const done = execa(command, words, { reject: false }).then(() => performance.now() - began);
    return await Promise.race([done, sleep(limitMs, undefined)]);
  };
  const isFrozen = async (name: string): Promise<boolean> => (await written(name, 500)) === undefined;
  const thawsWithin = async (limitMs: number): Promise<void> => {
    for (const name of ['one', 'two']) expect(await written(name, limitMs), name).toBeDefined();
  };
  const state = async (): Promise<unknown> => {
    using asker = await connectAgent(socketOf('agent.sock'));
    return ((await asker.call('bridge-status')) as { status: { state: string } }).status.state;
  };

  test("finds a socket for its group, and one that is root's alone", () => {
    for (const name of ['agent.sock', 'agent-root.sock'] as const)
      expect(statSync(socketOf(name)).mode & 0o007, name).toBe(0);
    expect(statSync(socketOf('agent-root.sock')).mode & 0o777).toBe(0o600);
    expect(statSync(socketOf('agent-root.sock')).uid).toBe(0);
  });

  describe('that is killed', () => {
    test('while it holds: its session ends with its connection, and writes go through within a second', async () => {
      for (let round = 0; round < 5; round++) {
        const one = requester();
        one.request('bridge-freeze', ask(`s${round}`, { 'ends-with-channel': true }));
        expect(await one.reply()).toMatchObject({ report: { state: 'frozen' } });
        expect(await isFrozen('one')).toBe(true);
        await one.kill();
        await thawsWithin(1_000);
        await expect.poll(state).toBe('idle');
      }
      const { report } = (await (await connect('agent.sock')).call('bridge-status')) as { report: FreezeReport };
      expect(report).toMatchObject({ outcome: 'broken', error: 'its requester ended the connection' });
    });

    test.each([
      ['prepare', `${described({ phases: 'prepare freeze verify thaw' })}[ "$1" != prepare ] || sleep 2`],
      ['freeze', `${described({})}[ "$1" != freeze ] || sleep 2`],
    ])(
      'in %s of a writer, before it has the reply: the attempt is given up, and the writer released',
      async (step, body) => {
        hook('app', `${body}\necho "$1" >>${join(run(), 'calls')}`);
        const one = requester();
        one.request('bridge-freeze', ask('s1', { 'ends-with-channel': true }));
        const reached = step === 'freeze' ? 'holding' : 'preparing';
        await expect.poll(state, { timeout: 5_000, interval: 20 }).toBe(reached);
        await sleep(200);
        await one.kill();
        await expect.poll(state, { timeout: 5_000, interval: 50 }).toBe('idle');
        await thawsWithin(1_000);
        // The phase under way was ended before it could say that it is done.
        const calls = existsSync(join(run(), 'calls')) ? readFileSync(join(run(), 'calls'), 'utf8') : '';
        expect(calls).toBe(step === 'freeze' ? 'thaw\n' : '');
        const after = await connect('agent.sock');
        await after.call('bridge-freeze', ask('s2', { require: 'crash' }), 10_000);
        expect(await after.call('bridge-thaw', { session: 's2' })).toMatchObject({ report: { state: 'thawed' } });
      },
    );

    test('just before, or just after, it could have the reply: nothing stays frozen', async () => {
      for (let round = 0; round < 12; round++) {
        const one = requester();
        one.request('bridge-freeze', ask(`s${round}`, { 'ends-with-channel': true }));
        await sleep(60 + round * 15);
        await one.kill();
        await expect.poll(state, { timeout: 5_000, interval: 20 }).toBe('idle');
        await thawsWithin(1_000);
      }
    });

    test('without having asked for it: the lease ends the session', async () => {
      const one = requester('agent.sock');
      one.request('bridge-freeze', ask('s1', { 'lease-ms': 2_500 }));
      await one.reply();
      await one.kill();
      expect(await isFrozen('one')).toBe(true);
      await thawsWithin(4_000);
      const after = await connect('agent.sock');
      expect(await after.call('bridge-thaw', { session: 's1' })).toMatchObject({ report: { outcome: 'expired' } });
    });

    test('inside a critical section: nothing is thawed before its bound, and all is then', async () => {
      const one = requester();
      one.request('bridge-freeze', ask('s1', { 'ends-with-channel': true }));
      await one.reply();
      one.request('bridge-critical', { session: 's1', on: true, 'bound-ms': 2_000 });
      await one.reply();
      const began = performance.now();
      await one.kill();
      expect(await isFrozen('one')).toBe(true);
      expect(await isFrozen('two')).toBe(true);
      await thawsWithin(3_000);
      expect(performance.now() - began).toBeGreaterThan(1_900);
    });
  });

  test('holds against every other program, and root ends it by name', async () => {
    const [holder, other, root] = [
      await connect('agent.sock'),
      await connect('agent.sock'),
      await connect('agent-root.sock'),
    ];
    await holder.call('bridge-freeze', ask('s1'));
    const held = 'the guest is held by restic (inside the guest, session s1)';
    await expect(other.call('bridge-thaw', { session: 's1' })).rejects.toThrow(held);
    await expect(other.call('guest-fsfreeze-thaw')).rejects.toThrow(held);
    await expect(other.call('bridge-renew', { session: 's1', 'lease-ms': 1 })).rejects.toThrow(held);
    await expect(other.call('bridge-critical', { session: 's1', on: true })).rejects.toThrow(
      "the socket that is root's",
    );
    await expect(root.call('guest-fsfreeze-thaw')).rejects.toThrow(held);
    expect(await isFrozen('one')).toBe(true);
    expect(await root.call('bridge-thaw', { session: 's1' })).toMatchObject({ report: { outcome: 'broken' } });
    await thawsWithin(1_000);
    expect(await holder.call('bridge-thaw', { session: 's1' })).toMatchObject({ report: { outcome: 'broken' } });
  });

  test('refuses the host by its name, whose freeze works afterwards', async () => {
    const [holder, host] = [await connect('agent.sock'), await connect('host')];
    await holder.call('bridge-freeze', ask('s1'));
    expect(await host.call('guest-fsfreeze-status')).toBe('frozen');
    await expect(host.call('guest-fsfreeze-thaw')).rejects.toThrow('the guest is held by restic (inside the guest');
    await expect(host.call('guest-fsfreeze-freeze')).rejects.toThrow(
      'Command guest-fsfreeze-freeze has been disabled: the guest is held by restic (inside the guest, session s1)',
    );
    await expect(host.call('bridge-freeze', ask('h1'))).rejects.toThrow('held by restic (inside the guest');
    await expect((await connect('agent.sock')).call('bridge-freeze', ask('s2'))).rejects.toThrow('held by restic');
    await expect(holder.call('bridge-freeze', ask('s2'))).rejects.toThrow('the command is not allowed');
    expect(await isFrozen('two')).toBe(true);
    await holder.call('bridge-thaw', { session: 's1' });
    expect(await host.call('guest-fsfreeze-freeze')).toBe(2);
    await expect(holder.call('guest-fsfreeze-thaw')).rejects.toThrow('held by guest-fsfreeze-freeze on unix-listen');
    expect(await host.call('guest-fsfreeze-thaw')).toBe(2);
    await thawsWithin(1_000);
  });

  test('is waited for at the end of its lease while it is inside a critical section', async () => {
    const holder = await connect('agent-root.sock');
    await holder.call('bridge-freeze', ask('s1', { 'lease-ms': 800 }));
    await holder.call('bridge-critical', { session: 's1', on: true, 'bound-ms': 10_000 });
    await sleep(1_500);
    expect(await isFrozen('one')).toBe(true);
    await expect(holder.call('bridge-critical', { session: 's1', on: true })).rejects.toThrow('the lease ended');
    await holder.call('bridge-critical', { session: 's1', on: false });
    await thawsWithin(1_000);
    expect(await holder.call('bridge-thaw', { session: 's1' })).toMatchObject({ report: { outcome: 'expired' } });
  });

  test('is waited for no longer than the bound of that section', async () => {
    const holder = await connect('agent-root.sock');
    await holder.call('bridge-freeze', ask('s1', { 'lease-ms': 500 }));
    const began = performance.now();
    await holder.call('bridge-critical', { session: 's1', on: true, 'bound-ms': 2_000 });
    expect(await isFrozen('one')).toBe(true);
    await thawsWithin(3_000);
    expect(performance.now() - began).toBeGreaterThan(1_900);
    expect(performance.now() - began).toBeLessThan(4_500);
  });

  test('leaves a filesystem to its provider: it is not frozen, and the agent vouches for no more than crash', async () => {
    const holder = await connect('agent-root.sock');
    const asked = ask('s1', { mountpoints: ['/mnt/one', '/mnt/two'], leave: ['/mnt/two'] });
    expect(await holder.call('bridge-freeze', asked)).toMatchObject({
      report: { level: 'crash', levelWithProvider: 'filesystem' },
    });
    expect(await written('two', 1_000)).toBeDefined();
    expect(await isFrozen('one')).toBe(true);
    const { report } = (await holder.call('bridge-thaw', { session: 's1' })) as { report: FreezeReport };
    expect(Object.fromEntries(report.filesystems.map(({ mountpoint, held }) => [mountpoint, held]))).toEqual({
      '/mnt/one': 'frozen',
      '/mnt/two': 'provider',
    });
  });

  test('is not disturbed by another one that sends half a line, floods, and does not read', async () => {
    const holder = await connect('agent.sock');
    await holder.call('bridge-freeze', ask('s1', { 'ends-with-channel': true }));
    const [half, flood] = [await connect('agent.sock'), await connect('agent.sock')];
    half.send('{"execute": "bridge-thaw", "arguments": {"session": "s1"');
    half[Symbol.dispose]();
    flood.socket.pause();
    const line = `${JSON.stringify({ execute: 'bridge-thaw', arguments: { session: 's1' } })}\n`;
    for (let times = 0; times < 200; times++) flood.send(line.repeat(100));
    for (let times = 0; times < 5; times++) {
      const began = performance.now();
      expect(await holder.call('bridge-renew', { session: 's1', 'lease-ms': 20_000 })).toBeDefined();
      expect(performance.now() - began).toBeLessThan(2_000);
    }
    expect(await isFrozen('one')).toBe(true);
    expect(await holder.call('bridge-thaw', { session: 's1' }, 5_000)).toMatchObject({ report: { outcome: 'ok' } });
    await thawsWithin(1_000);
  });

  test('that is root finds room, though its group has taken all of its own', async () => {
    for (let count = 0; count < 32; count++) await connect('agent.sock');
    const late = await connect('agent.sock');
    await expect(late.call('guest-ping')).rejects.toThrow('too many clients: 32 are connected already');
    expect(await (await connect('agent-root.sock')).call('guest-ping')).toEqual({});
  });

  test('may half-close to end its session, as a program that dies does', async () => {
    const holder = await connect('agent.sock');
    await holder.call('bridge-freeze', ask('s1', { 'ends-with-channel': true }));
    holder.socket.end();
    await thawsWithin(1_000);
    await expect.poll(state).toBe('idle');
  });

  test('is waited for within its bound also when the freezer is killed inside its section', async () => {
    const holder = await connect('agent-root.sock');
    await holder.call('bridge-freeze', ask('s1'));
    const freezer = await connectToSocket(join(run(), 'freezer.sock'), noEvents);
    const { pid } = await freezer.hello();
    freezer.close();
    const began = performance.now();
    await holder.call('bridge-critical', { session: 's1', on: true, 'bound-ms': 2_500 });
    process.kill(pid, 'SIGKILL');
    // The service manager would run this at once.
    const thawing = execa(mounts.outside.freezerPath, ['--thaw-marked'], { reject: false });
    expect(await isFrozen('one')).toBe(true);
    expect(await isFrozen('two')).toBe(true);
    await thawsWithin(3_000);
    expect(performance.now() - began).toBeGreaterThan(2_400);
    await thawing;
    expect(await holder.call('bridge-thaw', { session: 's1' }, 10_000)).toMatchObject({
      report: { outcome: 'broken', state: 'thawed' },
    });
  });

  test('the freezer keeps the bound of a section also when the agent has gone inside it', async () => {
    const freezer = await connectToSocket(join(run(), 'freezer.sock'), noEvents).catch(async () => {
      // The first session starts it.
      const starter = await connect('agent.sock');
      await starter.call('bridge-freeze', ask('s0'));
      await starter.call('bridge-thaw', { session: 's0' });
      return await connectToSocket(join(run(), 'freezer.sock'), noEvents);
    });
    await freezer.hello();
    await freezer.plan({ session: 's1', owner: 'o', leaseMaxMs: 60_000, budgetMs: 60_000, expedite: false });
    for (const { mountId, device, path } of mounts.mounts) await freezer.add(0, mountId, device, path);
    await freezer.freeze(20_000);
    await freezer.critical(true, 1_500);
    const began = performance.now();
    freezer.close();
    expect(await isFrozen('one')).toBe(true);
    await thawsWithin(3_000);
    expect(performance.now() - began).toBeGreaterThan(1_400);
  });
});
