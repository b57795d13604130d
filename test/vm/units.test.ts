// The units under a real service manager: whatever is stopped, restarted, upgraded, killed or shut down while the guest
// is frozen, nothing stays frozen; and the rights that were taken away are missed by nobody (qga/README.md, "Units").
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { guestPid, waitForAgent, type Guest } from '../../src/testing/index.js';
import { addWriter, agentGuest, requester, userModeAgent } from '../support/agent-guest.js';
import { beginWrites, guestSeconds, lastWrite, writesDone } from '../support/first-write.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { recipes } from '../support/variants.js';

const EVERYWHERE = ['/var/tmp', '/srv/data'];
const AGENT = 'fsfreeze-agent.service';
const FREEZER = 'fsfreeze-freezer.service';
/** Never what thaws a guest here. */
const LONG_LEASE_MS = 120_000;
/** For the freezer to be given up by systemd (TimeoutStopSec), and a machine that is busy. */
const AT_ONCE_S = 6;

async function freeze(guest: Guest, leaseMs = LONG_LEASE_MS) {
  const host = await requester(guest);
  try {
    const session = await host.coordinator.freeze({ requester: 'test', leaseMs, require: 'application' });
    const writes = await beginWrites(guest, EVERYWHERE);
    expect(await writesDone(guest, writes)).toEqual([]);
    return { session, writes };
  } finally {
    await host.client.close();
  }
}

async function expectNextSession(guest: Guest): Promise<void> {
  await waitForAgent(guest);
  await using host = await requester(guest);
  const session = await host.coordinator.freeze({ requester: 'next', leaseMs: 20_000, require: 'application' });
  expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
}

/** What `act` does to a frozen guest thaws it, and not the lease. */
async function expectThawedBy(guest: Guest, act: () => Promise<unknown>): Promise<void> {
  const { writes } = await freeze(guest);
  const begun = await guestSeconds(guest);
  await act();
  expect((await lastWrite(guest, writes, 60_000)) - begun).toBeLessThan(AT_ONCE_S);
}

const systemctl = (guest: Guest, action: string) => async () => await guest.start(`systemctl --no-block ${action}`);

/**
 * Neither may hear of the other's end: the freezer would thaw, and the agent have it thawed. Where there is one processor
 * whoever is woken runs before the next signal is sent.
 */
async function killBoth(guest: Guest): Promise<void> {
  const [freezer, agent] = [await guestPid(guest, { unit: FREEZER }), await guestPid(guest, { unit: AGENT })];
  await guest.exec(`kill -STOP ${freezer} ${agent}; kill -KILL ${freezer} ${agent}`);
}

/** Neither unit is started anew, and nothing runs when one ends. */
async function withoutRestart(guest: Guest): Promise<void> {
  const text = '[Service]\\nRestart=no\\nExecStopPost=\\n';
  const unit = (name: string) => `d=/run/systemd/system/${name}.d; mkdir -p $d; printf '${text}' >$d/no-restart.conf`;
  await guest.exec(`${unit(AGENT)}; ${unit(FREEZER)}; systemctl daemon-reload`);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('the units, in QEMU', () => {
  test('both killed: the service manager thaws', async () => {
    await using guest = await agentGuest();
    await expectThawedBy(guest, async () => {
      await killBoth(guest);
    });
    await expectNextSession(guest);
  });

  test.for(['poweroff', 'reboot'])('%s while frozen: it thaws, and waits for no lease', async (how) => {
    await using guest = await agentGuest();
    await freeze(guest, 300_000);
    await guest.start(`systemctl --no-block ${how}`);
    // QEMU runs with -no-reboot; a shut down guest ends it. A monitor that is gone tells it.
    await expect
      .poll(async () => await guest.runState().catch(() => 'ended'), { timeout: 120_000, interval: 500 })
      .toBe('ended');
  });
});

for (const recipe of recipes('debian-12'))
  requires(...USER_MODE)(`the units, ${recipe}`, () => {
    const start = async () => await userModeAgent({ recipe, kernel: '6.12' });
    // Of the tests that leave the guest as it was, and show it by one more session.
    const shared = sharedGuest(start);

    test('poweroff while frozen: it thaws, and waits for no lease', async () => {
      await using guest = await start();
      await freeze(guest, 300_000);
      await guest.start('systemctl --no-block poweroff');
      await guest.waitForEnd(60_000);
    });

    test.for([
      `stop ${FREEZER}`,
      `stop ${AGENT}`,
      `restart ${FREEZER}`,
      `restart ${AGENT}`,
      `stop ${AGENT} ${FREEZER}`,
    ])('systemctl %s while frozen: nothing stays frozen', async (action) => {
      await expectThawedBy(shared(), systemctl(shared(), action));
      await shared().exec(`systemctl start ${FREEZER} ${AGENT}`);
      await expectNextSession(shared());
    });

    test('both killed: the service manager thaws', async () => {
      await expectThawedBy(shared(), async () => {
        await killBoth(shared());
      });
      await expectNextSession(shared());
    });

    test('systemctl isolate rescue.target while frozen: nothing stays frozen', async () => {
      await using guest = await start();
      await expectThawedBy(guest, systemctl(guest, 'isolate rescue.target'));
      await expect
        .poll(async () => (await guest.exec(`systemctl is-active ${AGENT}`, { check: false })).stdout.trim(), {
          timeout: 30_000,
        })
        .toBe('inactive');
      await guest.exec('systemctl isolate multi-user.target', { timeoutMs: 120_000 });
      await guest.startPostgres();
      await guest.exec(`systemctl start ${FREEZER} ${AGENT}`);
      await expectNextSession(guest);
    });

    test('a package installed over itself while frozen waits for the thaw and goes through', async () => {
      await using guest = await start();
      await guest.copyIn([fileURLToPath(new URL('../../build/fsfreeze-agent.deb', import.meta.url))], '/var/tmp/deb');
      await guest.exec(['/bin/sync']);
      const pids = async () => [await guestPid(guest, { unit: AGENT }), await guestPid(guest, { unit: FREEZER })];
      const before = await pids();
      const { writes } = await freeze(guest, 8000);
      const dpkg = await guest.start('dpkg -i /var/tmp/deb/*.deb 2>&1');
      await lastWrite(guest, writes, 60_000);
      expect(await dpkg.wait(180_000)).toMatchObject({ exitCode: 0 });
      const after = await pids();
      expect(after.filter((pid) => before.includes(pid))).toEqual([]);
      await expectNextSession(guest);
    });

    test('both killed and nobody there to thaw: the freezer thaws when it is started, before it serves', async () => {
      await using guest = await start();
      await withoutRestart(guest);
      const { writes } = await freeze(guest);
      await killBoth(guest);
      await sleep(3000);
      // They are frozen indeed, and only the marker knows.
      expect(await writesDone(guest, writes)).toEqual([]);
      const begun = await guestSeconds(guest);
      await guest.exec(`systemctl start ${FREEZER}`);
      expect((await lastWrite(guest, writes, 10_000)) - begun).toBeLessThan(AT_ONCE_S);
      expect((await guest.exec('ls /run/fsfreeze-bridge/frozen', { check: false })).exitCode).not.toBe(0);
      await guest.exec(`systemctl start ${AGENT}`);
      await expectNextSession(guest);
    });

    test('what a hook has started outlives the agent', async () => {
      await using guest = await start();
      // As a hook does that starts its application again at thaw.
      const startIt = '( setsid sleep 1000 >/dev/null 2>&1 & echo $! >/run/application.pid )';
      await addWriter(
        guest,
        '20-starts',
        `#!/bin/sh\n[ "$1" = freeze ] || { [ -e /run/application.pid ] || ${startIt}; }\n`,
      );
      {
        await using host = await requester(guest);
        const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 20_000, require: 'filesystem' });
        await session.thaw();
      }
      const old = await guestPid(guest, { unit: AGENT });
      await guest.exec(`kill -KILL ${old}`);
      await expect
        .poll(async () => await guestPid(guest, { unit: AGENT }).catch(() => old), { timeout: 30_000 })
        .not.toBe(old);
      await guest.exec(`systemctl restart ${AGENT}`);
      await guest.exec('kill -0 $(cat /run/application.pid)');
    });

    test('the freezer has the rights it needs and no others; writers have all', async () => {
      await using guest = await start();
      const rights = async (file: string): Promise<readonly string[]> =>
        (await guest.exec(`grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' ${file} | tr '\\t' ' '`)).stdout
          .trim()
          .split('\n');
      // kill, ipc_lock, sys_admin, sys_nice, sys_resource, dac_read_search.
      const caps = [5, 14, 21, 23, 24, 2].reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
      const hex = caps.toString(16).padStart(16, '0');
      const freezer = await rights(`/proc/${await guestPid(guest, { unit: FREEZER })}/status`);
      expect(freezer).toEqual([`CapEff: ${hex}`, `CapBnd: ${hex}`, 'NoNewPrivs: 1', 'Seccomp: 2']);

      // A mount in a folder that its owner keeps from everybody: root without CAP_DAC_READ_SEARCH could not open it.
      const { path: disk } = await guest.addBlankDisk('private', 64);
      await guest.exec(`useradd -m alice && install -d -o alice -m 700 /home/alice/a && install -d -o alice -m 700 /home/alice/a/m
      mkfs.ext4 -q ${disk} && mount ${disk} /home/alice/a/m
      chown alice /home/alice/a/m && chmod 700 /home/alice /home/alice/a/m`);
      await addWriter(guest, '20-rights', '#!/bin/sh\ncat /proc/self/status >/run/rights\n');
      await using host = await requester(guest);
      const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 20_000, require: 'filesystem' });
      const report = await session.thaw();
      expect(report.filesystems.find(({ mountpoint }) => mountpoint === '/home/alice/a/m')).toMatchObject({
        held: 'frozen',
      });
      const all = (await guest.exec(['/bin/cat', '/proc/sys/kernel/cap_last_cap'])).stdout;
      const full = ((1n << BigInt(Number(all) + 1)) - 1n).toString(16).padStart(16, '0');
      expect(await rights('/run/rights')).toEqual([
        `CapEff: ${full}`,
        `CapBnd: ${full}`,
        'NoNewPrivs: 0',
        'Seccomp: 0',
      ]);
    });

    test('a writer is not spared when memory runs out, though the agent is', async () => {
      await using guest = await start();
      const agent = await guestPid(guest, { unit: AGENT });
      expect((await guest.exec(['/bin/cat', `/proc/${agent}/oom_score_adj`])).stdout.trim()).toBe('-900');
      await addWriter(guest, '30-score', '#!/bin/sh\nsleep 0.5; cat /proc/self/oom_score_adj >/run/score\n');
      await using host = await requester(guest);
      const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 20_000, require: 'filesystem' });
      await session.thaw();
      expect((await guest.exec(['/bin/cat', '/run/score'])).stdout.trim()).toBe('0');
    });
  });
