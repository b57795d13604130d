// The agent of a machine without a virtio port (fsfreeze-agent-local.service) under a real systemd: programs inside the
// guest hold it on the agent's own sockets, and an agent with a host takes its place.
import { beforeEach, expect, test } from 'vitest';
import { guestPid, waitForAgent, type Guest } from '../../src/testing/index.js';
import { requester, userModeAgent } from '../support/agent-guest.js';
import { beginWrites, lastWrite, writesDone } from '../support/first-write.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { kernels } from '../support/variants.js';

const LOCAL = 'fsfreeze-agent-local.service';
const PORT_AGENT = 'fsfreeze-agent.service';
const PORT = '/dev/virtio-ports/org.qemu.guest_agent.0';
const SOCKET = '/run/fsfreeze-bridge/agent.sock';
const ROOT_SOCKET = '/run/fsfreeze-bridge/agent-root.sock';

const PROGRAM = '/run/client';
/** Sends each request, tells its reply, and stays connected for as many seconds. */
const CLIENT = `
use strict; use IO::Socket::UNIX;
my ($path, $out, $seconds, @requests) = @ARGV;
open(my $tell, '>', $out) or die; $tell->autoflush(1);
my $s = IO::Socket::UNIX->new($path) or do { print $tell "cannot connect: $!\\n"; exit 0 };
for (@requests) { print $s "$_\\n"; print $tell scalar <$s> }
sleep $seconds;
`;
const request = (execute: string, args: object = {}): string => JSON.stringify({ execute, arguments: args });
const words = (path: string, out: string, seconds: number, requests: readonly string[]): readonly string[] => [
  ...['/usr/bin/perl', PROGRAM, path, out, String(seconds)],
  ...requests,
];

async function ask(guest: Guest, path: string, ...requests: readonly string[]): Promise<readonly string[]> {
  await guest.exec(words(path, '/run/replies', 0, requests), { timeoutMs: 60_000 });
  return (await guest.exec(['/bin/cat', '/run/replies'])).stdout.trim().split('\n');
}
async function state(guest: Guest, unit: string): Promise<string> {
  return (await guest.exec(`systemctl is-active ${unit}`, { check: false })).stdout.trim();
}
/** Its reply to one request is in this file once it holds. */
async function hold(guest: Guest, args: object): Promise<{ readonly pid: number }> {
  await guest.exec(['/bin/rm', '-f', '/run/held']);
  const holder = await guest.start(words(ROOT_SOCKET, '/run/held', 600, [request('bridge-freeze', args)]));
  await guest.exec('until [ -s /run/held ]; do sleep 0.05; done', { timeoutMs: 60_000 });
  expect((await guest.exec(['/bin/cat', '/run/held'])).stdout).toMatch(/"state": ?"frozen"/);
  return holder;
}

for (const kernel of kernels('7.2'))
  requires(...USER_MODE)(`the agent without a host, kernel ${kernel}`, () => {
    const guest = sharedGuest(
      async () => await userModeAgent({ kernel }),
      async (started) => {
        await started.exec(['/usr/bin/tee', PROGRAM], { input: CLIENT });
      },
    );
    const asked = { session: 's1', requester: 'restic', 'lease-ms': 120_000 };

    beforeEach(async () => {
      await guest().exec('pkill -KILL -x perl; systemctl reset-failed', { check: false });
    });

    test('is enabled, and neither starts where the port is nor stops the agent on it', async () => {
      expect((await guest().exec(`systemctl is-enabled ${LOCAL}`)).stdout.trim()).toBe('enabled');
      expect(await state(guest(), LOCAL)).toBe('inactive');
      const before = await guestPid(guest(), { unit: PORT_AGENT });
      await guest().exec(`systemctl start ${LOCAL}`);
      expect(await state(guest(), LOCAL)).toBe('inactive');
      expect(await guestPid(guest(), { unit: PORT_AGENT })).toBe(before);
    });

    test('starts where there is none; group and root have a socket each', async () => {
      await guest().exec(`systemctl stop ${PORT_AGENT}; rm ${PORT}; systemctl start ${LOCAL}`);
      await guest().exec(`until [ -S ${ROOT_SOCKET} ]; do sleep 0.05; done`, { timeoutMs: 30_000 });
      expect(await state(guest(), LOCAL)).toBe('active');
      const { stdout } = await guest().exec(`stat -c '%U:%G %a' ${SOCKET} ${ROOT_SOCKET}`);
      expect(stdout.trim().split('\n')).toEqual(['root:fsfreeze-bridge 660', 'root:root 600']);
      const member = `setpriv --reuid=65534 --regid=65534 --groups="$(getent group fsfreeze-bridge | cut -d: -f3)"`;
      for (const [path, told] of [
        [SOCKET, '{"return":{}}'],
        [ROOT_SOCKET, 'cannot connect: Permission denied'],
      ] as const) {
        await guest().exec('install -m 666 /dev/null /run/replies');
        const client = words(path, '/run/replies', 0, [request('guest-ping')]).map((word) => `'${word}'`);
        await guest().exec(`exec ${member} ${client.join(' ')}`);
        expect((await guest().exec(['/bin/cat', '/run/replies'])).stdout.replaceAll(' ', '').trim()).toBe(
          told.replaceAll(' ', ''),
        );
      }
    });

    test('lets go at once of what a program held that is killed, and of nothing else', async () => {
      const { pid } = await hold(guest(), { ...asked, 'ends-with-channel': true });
      const writes = await beginWrites(guest(), ['/var/tmp', '/srv/data']);
      const refused = await ask(
        guest(),
        SOCKET,
        request('bridge-thaw', { session: 's1' }),
        request('guest-fsfreeze-thaw'),
        request('bridge-freeze', { session: 's2' }),
      );
      for (const reply of refused)
        expect(reply).toContain('the guest is held by restic (inside the guest, session s1)');
      expect(await writesDone(guest(), writes)).toEqual([]);
      await guest().exec(['/bin/kill', '-KILL', String(pid)]);
      await lastWrite(guest(), writes, 20_000);
      const [status = ''] = await ask(guest(), SOCKET, request('bridge-status'));
      expect(status).toContain('its requester ended the connection');
    });

    test('ends by name of root what a program holds, and is released when it is stopped itself', async () => {
      await hold(guest(), { ...asked, session: 's3' });
      const [ended = ''] = await ask(guest(), ROOT_SOCKET, request('bridge-thaw', { session: 's3' }));
      expect(ended).toMatch(/"outcome": ?"broken"/);
      await hold(guest(), { ...asked, session: 's4' });
      const writes = await beginWrites(guest(), ['/var/tmp', '/srv/data']);
      await guest().exec(`systemctl restart ${LOCAL}`, { timeoutMs: 60_000 });
      await lastWrite(guest(), writes, 20_000);
      expect(await state(guest(), LOCAL)).toBe('active');
    });

    test('makes room for the agent on a port that appears', async () => {
      await guest().exec(`ln -s ../ttyS1 ${PORT}; systemctl start ${PORT_AGENT}`, { timeoutMs: 60_000 });
      expect(await state(guest(), LOCAL)).toBe('inactive');
      await waitForAgent(guest());
      await using host = await requester(guest());
      const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 60_000, require: 'filesystem' });
      expect(await session.thaw()).toMatchObject({ outcome: 'ok' });
      await guest().exec(`systemctl start ${LOCAL}`);
      expect(await state(guest(), LOCAL)).toBe('inactive');
      expect(await state(guest(), PORT_AGENT)).toBe('active');
    });
  });
