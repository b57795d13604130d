// The agent and the freezer in a real guest: what a requester on the host's channel gets, and that the guest always
// comes back.
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { QgaClient } from '../../src/qga/client.js';
import { startStallProbe, waitForAgent, type Guest } from '../../src/testing/index.js';
import { addWriter, agentGuest, removeWriters, requester, userModeAgent } from '../support/agent-guest.js';
import { kernels } from '../support/variants.js';
import { connectLines } from '../support/line-client.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';

/** A write that reaches the disk, in the background; see `written`. */
async function writeInBackground(guest: Guest, file: string): Promise<void> {
  await guest.exec(['/bin/rm', '-f', '/run/written']);
  await guest.start(`dd if=/dev/zero of=${file} bs=4k count=1 conv=fsync 2>/dev/null && : >/run/written`);
}

async function written(guest: Guest): Promise<boolean> {
  return (await guest.exec(['/bin/test', '-e', '/run/written'], { check: false })).exitCode === 0;
}

async function knob(guest: Guest): Promise<string> {
  return (await guest.exec(['/bin/cat', '/sys/kernel/rcu_expedited'])).stdout.trim();
}

/** A plain freeze, with a look at the guest in it, and a plain thaw. */
async function expectHold(guest: Guest, look?: () => Promise<void>): Promise<void> {
  await using host = await requester(guest);
  expect(await host.client.call('guest-fsfreeze-freeze', {}, { timeoutMs: 60_000 })).toBe(2);
  expect(await host.client.call('guest-fsfreeze-status', {}, { timeoutMs: 5000 })).toBe('frozen');
  await look?.();
  await writeInBackground(guest, '/srv/data/probe');
  await sleep(1000);
  expect(await written(guest)).toBe(false);
  expect(await host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 30_000 })).toBe(2);
  await expect.poll(async () => await written(guest), { timeout: 10_000 }).toBe(true);
  expect(await host.client.call('guest-fsfreeze-status', {}, { timeoutMs: 5000 })).toBe('thawed');
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('the agent on a virtio port', () => {
  const shared = sharedGuest(agentGuest);

  test('freezes what qemu-ga freezes, holds writes back, and thaws it', async () => {
    const before = await knob(shared());
    await expectHold(shared(), async () => {
      await expect.poll(async () => await knob(shared()), { timeout: 5000 }).toBe(before);
    });
  });

  test('loses no request of a host that comes right after another one went', async () => {
    for (let host = 0; host < 200; host++) {
      using client = await connectLines(shared().qgaPath);
      client.send('{"execute":"guest-ping"}');
      expect(await client.line(20_000), `host ${host}`).toBe('{"return": {}}');
    }
  });

  test('a host that goes away in the middle of a request and comes back is served', async () => {
    {
      await using first = await requester(shared());
      await first.client.call('guest-ping', {}, { timeoutMs: 5000 });
    }
    const { connect } = await import('node:net');
    await new Promise<void>((resolve, reject) => {
      const half = connect(shared().qgaPath, () => {
        half.end('{"execute":"guest-pi', () => {
          resolve();
        });
      });
      half.on('error', reject);
    });
    await using client = await QgaClient.connect(shared().qgaPath, { timeoutMs: 10_000 });
    expect(await client.call('guest-ping', {}, { timeoutMs: 5000 })).toEqual({});
  });

  test('the lease is running time of the guest: a paused one does not spend it', async () => {
    await using host = await requester(shared());
    const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 3000, require: 'application' });
    await shared().pause();
    await sleep(4000);
    await shared().resume();
    expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
  });
});

for (const kernel of kernels('7.2'))
  requires(...USER_MODE)(`the agent in a guest, kernel ${kernel}`, () => {
    // Each test leaves it as it was.
    const start = async () => await userModeAgent({ kernel });
    const shared = sharedGuest(start);

    test('freezes what qemu-ga freezes, holds writes back, and thaws it', async () => {
      await expectHold(shared());
    });

    test('answers while frozen only what qemu-ga answers, and ours', async () => {
      await using host = await requester(shared());
      await host.client.call('guest-fsfreeze-freeze', {}, { timeoutMs: 60_000 });
      await host.client.call('guest-ping', {}, { timeoutMs: 5000 });
      await expect(host.client.call('guest-get-fsinfo', {}, { timeoutMs: 5000 })).rejects.toMatchObject({
        class: 'CommandNotFound',
        desc: 'Command guest-get-fsinfo has been disabled: the command is not allowed',
      });
      const { status } = await host.client.call('bridge-status', {}, { timeoutMs: 5000 });
      expect(status).toMatchObject({ state: 'frozen' });
      expect(await host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 30_000 })).toBe(2);
      expect(await host.client.call('guest-get-fsinfo', {}, { timeoutMs: 5000 })).toHaveLength(2);
    });

    // The kernel tells that a host went and came by another way than it gives the bytes: an agent that ends a connection
    // with its replies answers some three of a hundred of these never.
    test('thaws by itself when the lease ends, and says so once', async () => {
      await using host = await requester(shared());
      const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 1500, require: 'application' });
      expect(session.report).toMatchObject({ state: 'frozen', level: 'application' });
      await writeInBackground(shared(), '/srv/data/probe');
      await expect.poll(async () => await written(shared()), { timeout: 10_000 }).toBe(true);
      await expect(host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 5000 })).rejects.toMatchObject({
        desc: expect.stringContaining('before the requester asked: the snapshot is not consistent') as string,
      });
      expect(await host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 5000 })).toBe(0);
      expect(await session.thaw()).toMatchObject({ state: 'thawed', outcome: 'expired', level: 'crash' });
    });

    test('a renewed lease lasts, up to the thaw', async () => {
      await using host = await requester(shared());
      const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 2000, require: 'application' });
      for (let turn = 0; turn < 4; turn++) {
        await sleep(800);
        expect((await session.renew(2000)).remainingMs).toBeGreaterThan(500);
      }
      const report = await session.thaw();
      expect(report).toMatchObject({ outcome: 'ok', level: 'application' });
      expect(report.frozenWindowMs).toBeGreaterThan(3000);
      expect(report.pauseWindowMs).toBeGreaterThan(report.frozenWindowMs);
    });

    test('a thaw by a stranger lowers the level', async () => {
      await using host = await requester(shared());
      const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 20_000, require: 'application' });
      await shared().exec(['/sbin/fsfreeze', '--unfreeze', '/srv/data']);
      expect(await session.thaw()).toMatchObject({ state: 'thawed', outcome: 'broken', level: 'crash' });
      expect(await host.client.call('guest-fsfreeze-status', {}, { timeoutMs: 5000 })).toBe('thawed');
    });

    test('what a stranger froze is neither counted nor thawed', async () => {
      await using guest = await start();
      await using host = await requester(guest);
      // PostgreSQL's checkpoint would wait for the stranger until its own limit.
      await guest.exec(['/bin/systemctl', 'stop', guest.image.postgresql.unit]);
      await guest.exec(['/sbin/fsfreeze', '--freeze', '/srv/data']);
      expect(await host.client.call('guest-fsfreeze-freeze', {}, { timeoutMs: 60_000 })).toBe(1);
      expect(await host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 30_000 })).toBe(1);
      await guest.exec(['/sbin/fsfreeze', '--unfreeze', '/srv/data']);
    });

    test('a second freeze is refused, naming who holds the guest', async () => {
      await using host = await requester(shared());
      const session = await host.coordinator.freeze({ requester: 'the first one', leaseMs: 20_000, require: 'auto' });
      await expect(
        host.coordinator.freeze({ requester: 'the second one', leaseMs: 1000, require: 'auto' }),
      ).rejects.toThrow(/the first one/);
      expect(await session.thaw()).toMatchObject({ outcome: 'ok' });
    });

    test('a required writer that fails ends the attempt, and every writer started is thawed', async () => {
      const guest = shared();
      await using host = await requester(guest);
      await addWriter(guest, '10-good', '#!/bin/sh\necho "$1" >>/run/good\n');
      await addWriter(
        guest,
        '20-bad',
        '#!/bin/sh\necho "$1" >>/run/bad\n[ "$1" = thaw ] || { echo no luck >&2; exit 1; }\n',
      );
      const attempt = host.coordinator.freeze({ requester: 'test', leaseMs: 5000, require: 'application' });
      await expect(attempt).rejects.toThrow(/20-bad.*no luck/);
      expect((await guest.exec('cat /run/good /run/bad')).stdout).toBe('freeze\nthaw\nfreeze\nthaw\n');
      expect(await host.client.call('guest-fsfreeze-status', {}, { timeoutMs: 5000 })).toBe('thawed');
      await removeWriters(guest, '10-good', '20-bad');
    });

    describe('units', () => {
      test('the writer folders are watched: a bad hook is told of when it is dropped in', async () => {
        const guest = shared();
        await addWriter(guest, '30-bad', '#!/bin/sh\n# fsfreeze-writer: rank=high\nexit 0\n');
        const log = async () => (await guest.exec('journalctl -u fsfreeze-agent -o cat --no-pager')).stdout;
        await expect.poll(log, { timeout: 20_000, interval: 500 }).toContain('30-bad');
        await removeWriters(guest, '30-bad');
      });

      test('agent and freezer are restarted, and serve again', async () => {
        await shared().exec('systemctl restart fsfreeze-freezer fsfreeze-agent');
        // What is sent to a serial line that nobody reads is lost.
        await waitForAgent(shared());
        await using host = await requester(shared());
        const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 5000, require: 'application' });
        expect(await session.thaw()).toMatchObject({ level: 'application' });
      });

      test('no write of ours touches a frozen filesystem: the agent goes on for the whole lease', async () => {
        await using host = await requester(shared());
        await using probe = await startStallProbe(shared(), ['/', '/srv/data']);
        const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 20_000, require: 'application' });
        for (let turn = 0; turn < 20; turn++) {
          await host.coordinator.status();
          await sleep(100);
        }
        await session.thaw();
        for (const { longestMs } of await probe.gaps()) expect(longestMs).toBeGreaterThan(2000);
      });
    });
  });
