// The policies as the two channels of a running agent see them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { AgentOptions } from '../../../src/agent/agent.js';
import type { AgentClient } from '../../support/agent-client.js';
import { agentInProcess } from '../../support/agent-in-process.js';
import { idleCoordinator } from '../../support/idle-coordinator.js';

const agent = agentInProcess();
let freeze: (() => void) | undefined;

async function start(options: Partial<AgentOptions> = {}): Promise<{ host: AgentClient; local: AgentClient }> {
  await agent.start({
    createCoordinator(wiring) {
      freeze = () => wiring.onHold?.('s1');
      return idleCoordinator;
    },
    ...options,
  });
  return { host: await agent.connect('host'), local: await agent.connect('local') };
}
const off = (name: string): string => `CommandNotFound: Command ${name} has been disabled: the command is not allowed`;

test('is `default` if nothing else is said: files are read, not written, and nothing is run', async () => {
  const { host } = await start();
  const path = join(agent.folder, 'file');
  writeFileSync(path, 'text');
  const handle = await host.call('guest-file-open', { path });
  expect(handle).toBe(1000);
  expect(await host.call('guest-file-read', { handle })).toMatchObject({ count: 4, eof: true });
  await expect(host.call('guest-file-open', { path, mode: 'a' })).rejects.toThrow('the policy allows reading only');
  for (const name of ['guest-file-write', 'guest-exec', 'guest-set-user-password', 'guest-ssh-add-authorized-keys']) {
    await expect(host.call(name, {})).rejects.toThrow(off(name));
  }
});

test('`full` for the host is not for the local socket, whose group is not root', async () => {
  const { host, local } = await start({ policy: 'full' });
  const { pid } = (await host.call('guest-exec', { path: 'true' })) as { pid: number };
  await expect.poll(() => host.call('guest-exec-status', { pid })).toEqual({ exited: true, exitcode: 0 });
  for (const name of ['guest-exec', 'guest-file-open', 'guest-file-read', 'guest-shutdown', 'guest-set-time']) {
    await expect(local.call(name, {})).rejects.toThrow(off(name));
  }
  expect(await local.call('guest-get-osinfo')).toHaveProperty('kernel-release');
});

test('`also-allow` turns one on: file-write also lets files be opened for writing', async () => {
  const { host } = await start({ alsoAllow: ['guest-file-write'] });
  const handle = await host.call('guest-file-open', { path: join(agent.folder, 'new'), mode: 'w' });
  expect(await host.call('guest-file-write', { handle, 'buf-b64': 'aGk=' })).toEqual({ count: 2, eof: false });
  await expect(host.call('guest-exec', {})).rejects.toThrow(off('guest-exec'));
});

test('while frozen nothing is started or written, whatever the policy', async () => {
  const { host } = await start({ policy: 'full' });
  const path = join(agent.folder, 'file');
  const handle = await host.call('guest-file-open', { path, mode: 'w' });
  freeze?.();
  await expect(host.call('guest-exec', { path: 'true' })).rejects.toThrow(off('guest-exec'));
  await expect(host.call('guest-file-write', { handle, 'buf-b64': 'aGk=' })).rejects.toThrow(off('guest-file-write'));
  await expect(host.call('guest-fstrim')).rejects.toThrow(off('guest-fstrim'));
  const info = (await host.call('guest-info')) as { supported_commands: { name: string; enabled: boolean }[] };
  const on = info.supported_commands.filter(({ enabled }) => enabled).map(({ name }) => name);
  expect(on).toHaveLength(10);
});

test('a child that does not end, and an open file, do not keep the agent from stopping', async () => {
  const { host } = await start({ policy: 'full' });
  const { pid } = (await host.call('guest-exec', {
    path: 'sleep',
    arg: ['1000'],
    'capture-output': true,
  })) as { pid: number };
  await host.call('guest-file-open', { path: join(agent.folder, 'file'), mode: 'w' });
  const from = Date.now();
  await agent.stop();
  expect(Date.now() - from).toBeLessThan(3000);
  process.kill(pid, 'SIGKILL');
});
