// The agent as its unit runs it in the place of qemu-ga: with the distribution's settings, ended where no start anew helps,
// started anew slowly where it may, and by the watchdog when its loop stands still, but not while the guest is frozen.
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { guestPid, waitForAgent, type Guest } from '../../src/testing/index.js';
import { agentGuest, requester, userModeAgent } from '../support/agent-guest.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { rarely, recipes } from '../support/variants.js';

const AGENT = 'fsfreeze-agent.service';
const CONFIGURATION = '/etc/qemu/qemu-ga.conf';
const DEBIAN = '/etc/default/qemu-guest-agent';
/** Shorter than the unit's, which is 30 s; the agent goes by what it is told. */
const WATCHDOG_MS = 10_000;
const DROP_IN = `/run/systemd/system/${AGENT}.d/watchdog.conf`;

const line = async (guest: Guest, command: string): Promise<string> =>
  (await guest.exec(command, { check: false, timeoutMs: 60_000 })).stdout.trim();

const state = async (guest: Guest): Promise<Readonly<Record<string, string>>> => {
  const names = ['ActiveState', 'Result', 'ExecMainStatus', 'NRestarts'];
  const shown = await line(guest, `systemctl show ${names.map((name) => `-p ${name}`).join(' ')} ${AGENT}`);
  return Object.fromEntries(shown.split('\n').map((each) => each.split('=') as [string, string]));
};

/** What it said last, before it ended. */
const lastWords = async (guest: Guest): Promise<string> =>
  await line(
    guest,
    `journalctl --no-pager -o cat -t fsfreeze-agent -n 5; journalctl --no-pager -o cat -u ${AGENT} -n 10`,
  );

const write = async (guest: Guest, file: string, text: string): Promise<void> => {
  await guest.exec(`mkdir -p $(dirname ${file}) && cat >${file}`, { input: text });
};

const startAnew = async (guest: Guest): Promise<void> => {
  await guest.exec(`systemctl reset-failed ${AGENT}; systemctl restart ${AGENT}`, { check: false });
};

/** What no start anew mends: told once, and left at that. */
async function expectGivenUp(guest: Guest, words: string | RegExp): Promise<void> {
  await startAnew(guest);
  await expect
    .poll(() => state(guest), { timeout: 30_000 })
    .toMatchObject({ ActiveState: 'failed', Result: 'exit-code', ExecMainStatus: '78' });
  // It would have been started many times by now.
  await sleep(2000);
  expect(await state(guest)).toMatchObject({ ActiveState: 'failed', NRestarts: '0' });
  expect(await lastWords(guest)).toMatch(words);
}

async function expectServes(guest: Guest): Promise<void> {
  await startAnew(guest);
  await waitForAgent(guest);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('the agent under its unit, in QEMU', () => {
  test('a port that another program has is left to it, and who that is is said', async () => {
    await using guest = await agentGuest();
    await guest.exec(`systemctl stop ${AGENT}`);
    const holder = await guest.start('exec sleep 10000 <>/dev/virtio-ports/org.qemu.guest_agent.0');
    await expectGivenUp(guest, /org\.qemu\.guest_agent\.0 is taken by sleep \(process \d+\)/);
    await guest.exec(`kill ${await line(guest, 'pgrep -x sleep')}`);
    await holder.wait(10_000);
    await expectServes(guest);
  });
});

for (const recipe of recipes('debian-12'))
  requires(...USER_MODE)(`the agent under its unit, ${recipe}`, () => {
    const guest = sharedGuest(async () => await userModeAgent({ recipe, kernel: '6.12' }));

    afterEach(async () => {
      await guest().exec(`rm -f ${CONFIGURATION} ${DEBIAN}`);
    });

    test('a typo in [bridge] ends it with a code of its own, once, and its word names the key', async () => {
      await write(guest(), CONFIGURATION, '[bridge]\nlaese-ms=5000\n');
      await expectGivenUp(guest(), /\[bridge\] laese-ms: unknown key, expected one of lease-ms/);
      expect(await line(guest(), 'fsfreeze-agent --check-config --json 2>/dev/null; echo $?')).toMatch(
        /^{"exitCode":78,"error":".*laese-ms: unknown key.*"}\n78$/,
      );
      await guest().exec(`rm ${CONFIGURATION}`);
      await expectServes(guest());
    });

    test('a list of blocked commands in /etc/default/qemu-guest-agent is kept, and one that cannot be read stops it', async () => {
      await write(guest(), DEBIAN, 'sleep 1\nDAEMON_ARGS="--block-rpcs=guest-get-users"\n');
      await expectServes(guest());
      {
        await using host = await requester(guest());
        await expect(host.client.call('guest-get-users', {}, { timeoutMs: 20_000 })).rejects.toThrow(
          'has been disabled',
        );
        await host.client.call('guest-get-time', {}, { timeoutMs: 20_000 });
      }
      const log = await line(guest(), `journalctl --no-pager -o cat -u ${AGENT} -n 30`);
      expect(log).toContain('"setting":"sleep 1","why":"a command: this file is read, and not run"');
      await write(guest(), DEBIAN, 'DAEMON_ARGS="--block-rpcs=$(cat /etc/blocked)"\n');
      await expectGivenUp(guest(), /qemu-guest-agent:1: DAEMON_ARGS: expected a value as it is/);
      await guest().exec(`rm ${DEBIAN}`);
      await expectServes(guest());
    });

    test('the installation says which hooks would refuse a freeze, and what of the old settings is not used', async () => {
      await write(guest(), DEBIAN, 'DAEMON_ARGS="-d -v"\n');
      const hooks = '/etc/fsfreeze-bridge/fsfreeze-hook.d';
      await guest().exec(`printf '#!/bin/sh\n' >${hooks}/20-shared && chmod 775 ${hooks}/20-shared`);
      const deb = fileURLToPath(new URL('../../build/fsfreeze-agent.deb', import.meta.url));
      await guest().copyIn([deb], '/var/tmp/deb');
      const { stdout } = await guest().exec('dpkg -i /var/tmp/deb/*.deb 2>&1', { timeoutMs: 180_000 });
      expect(stdout).toContain(`${hooks}/20-shared: REFUSES every freeze: ${hooks}/20-shared is writable by others`);
      expect(stdout).toContain(`${DEBIAN}:1: DAEMON_ARGS: --daemonize: of no use under a unit`);
      expect(stdout).toMatch(/refused to the host by policy=default.*\n.*guest-exec/);
      await guest().exec(`rm ${DEBIAN} ${hooks}/20-shared`);
      await expectServes(guest());
    });

    test('one that ends at once, again and again, is soon not started at once any more', async () => {
      const folder = `/run/systemd/system/${AGENT}.d`;
      await write(guest(), `${folder}/zz-ends.conf`, '[Service]\nExecStart=\nExecStart=/bin/false\n');
      await guest().exec('systemctl daemon-reload');
      await startAnew(guest());
      // systemd 254 and later slow down, older ones give up: after 30 times, however long a busy machine takes for them.
      if (recipe === 'debian-12') {
        await expect
          .poll(async () => (await state(guest()))['ActiveState'], { timeout: 60_000, interval: 1000 })
          .toBe('failed');
        expect(await lastWords(guest())).toContain('Start request repeated too quickly');
      } else {
        await sleep(10_000);
        expect((await state(guest()))['ActiveState']).toBe('activating');
      }
      const restarts = Number((await state(guest()))['NRestarts']);
      expect(restarts).toBeGreaterThan(3);
      expect(restarts).toBeLessThanOrEqual(30);
      await guest().exec(`rm -r ${folder}; systemctl daemon-reload`);
      await expectServes(guest());
    });

    test('one whose loop stands still is started anew', { timeout: 240_000 }, async () => {
      expect(await line(guest(), `systemctl show -P WatchdogUSec ${AGENT}`)).toBe('30s');
      await write(guest(), DROP_IN, `[Service]\nWatchdogSec=${WATCHDOG_MS / 1000}s\n`);
      await guest().exec('systemctl daemon-reload');
      await expectServes(guest());
      const old = await guestPid(guest(), { unit: AGENT });
      await guest().exec(`kill -STOP ${old}`);
      await sleep(WATCHDOG_MS / 2);
      expect(await guestPid(guest(), { unit: AGENT })).toBe(old);
      await expect
        .poll(async () => await guestPid(guest(), { unit: AGENT }).catch(() => old), { timeout: 2 * WATCHDOG_MS })
        .not.toBe(old);
      const timeouts = `journalctl --no-pager -q -o cat -u ${AGENT} -g 'Watchdog timeout'`;
      expect(await line(guest(), timeouts)).toContain(AGENT);
      await waitForAgent(guest());
    });

    rarely('but not while the guest is frozen: it is there to release its writers', async () => {
      await using host = await requester(guest());
      const agent = await guestPid(guest(), { unit: AGENT });
      const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 120_000, require: 'filesystem' });
      await guest().exec(`kill -STOP ${agent}`);
      await sleep(1.5 * WATCHDOG_MS);
      expect(await guestPid(guest(), { unit: AGENT })).toBe(agent);
      await guest().exec(`kill -CONT ${agent}`);
      expect(await session.thaw()).toMatchObject({ outcome: 'ok' });
      // And from then on it is looked after again.
      await sleep(1.5 * WATCHDOG_MS);
      expect(await guestPid(guest(), { unit: AGENT })).toBe(agent);
      await guest().exec(`rm ${DROP_IN}; systemctl daemon-reload`);
    });
  });
