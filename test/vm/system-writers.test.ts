// The shipped writers 40-units and 90-system under a real systemd, on filesystems that are really frozen: a service stands
// still with its filesystem, the journal goes to memory and comes back, and neither stays held when the agent is killed.
import { describe, expect, test } from 'vitest';
import { guestPid, waitForAgent, type Guest } from '../../src/testing/index.js';
import { requester, userModeAgent } from '../support/agent-guest.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { recipes } from '../support/variants.js';

const LEASE_MS = 120_000;
/** Writes a line after the other to a filesystem of the set, and to the journal. */
const SERVICE = `set -e
mkdir -p /etc/fsfreeze-bridge
echo UNIT=ledger.service >/etc/fsfreeze-bridge/units.conf
cat >/etc/systemd/system/ledger.service <<'UNIT'
[Service]
ExecStart=/bin/sh -c 'n=0; while :; do n=$((n+1)); echo $n >/srv/data/ledger; sleep 0.05; done'
UNIT
systemctl daemon-reload
systemctl start ledger
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\\nStorage=persistent\\n' >/etc/systemd/journald.conf.d/zz-test.conf
systemctl restart systemd-journald
journalctl --flush`;
const GROUP = '/sys/fs/cgroup/system.slice/ledger.service';

const line = async (guest: Guest, command: string): Promise<string> =>
  (await guest.exec(command, { timeoutMs: 30_000 })).stdout.trim();
const frozen = async (guest: Guest): Promise<boolean> =>
  (await line(guest, `cat ${GROUP}/cgroup.events`)).includes('frozen 1');
const count = async (guest: Guest): Promise<number> => Number(await line(guest, 'cat /srv/data/ledger'));
/** Writes to the journal as any service does; fails if journald does not take it. */
const log = async (guest: Guest, word: string): Promise<void> => {
  await line(guest, `echo ${word} | timeout 5 systemd-cat -t words`);
};
/** What the journal on the disk has of those, and no other. */
const onDisk = async (guest: Guest): Promise<string> =>
  await line(guest, 'journalctl --sync; journalctl -D /var/log/journal -t words -o cat | tr "\\n" " "');

requires(...USER_MODE)('writers of the system', () => {
  describe.for(recipes('debian-12'))('%s', (recipe) => {
    const guest = sharedGuest(
      async () => await userModeAgent({ recipe }),
      async (started) => {
        await started.exec(SERVICE, { timeoutMs: 60_000 });
      },
    );

    test('a service and the journal are held and let go, and their files come with the report', async () => {
      await using host = await requester(guest());
      const session = await host.coordinator.freeze({ requester: 'test', leaseMs: LEASE_MS, require: 'filesystem' });
      expect(await frozen(guest())).toBe(true);
      const before = await count(guest());
      await log(guest(), 'one');
      // journald has it, and does not wait for the disk.
      await expect.poll(() => line(guest(), 'journalctl -t words -o cat'), { timeout: 10_000 }).toBe('one');
      expect(await onDisk(guest())).toBe('');
      expect(await count(guest())).toBe(before);
      const report = await session.thaw();
      expect(report).toMatchObject({ outcome: 'ok', accompanying: [{ name: '90-system' }] });
      expect(report.writers.find(({ name }) => name === '40-units')?.verdict).toBe('verified');
      expect(report.artefacts?.find(({ name }) => name === 'packages')?.text).toMatch(/^systemd 25/m);
      expect(await frozen(guest())).toBe(false);
      await expect.poll(() => count(guest()), { timeout: 10_000 }).toBeGreaterThan(before);
      await expect.poll(() => onDisk(guest()), { timeout: 10_000 }).toBe('one');
    });

    test('a process that waits in the kernel: given up after 3 s, with its name, and the service goes on', async () => {
      const hook = 'FSFREEZE_SCRATCH=/run/try /usr/lib/fsfreeze-bridge/fsfreeze-hook.d/40-units';
      // The filesystem is frozen before the service that writes to it: the wrong order, as a stranger may do it.
      await line(guest(), 'mkdir -p /run/try; fsfreeze -f /srv/data; sleep 0.3');
      try {
        const said = await line(
          guest(),
          `${hook} prepare && { bash -c "time -p ${hook} freeze" 2>&1; echo $?; }; ${hook} thaw`,
        );
        expect(said).toMatch(/^ledger\.service does not freeze within 3 s: sh \(pid \d+\) waits in the kernel\n/);
        expect(said).toMatch(/\nreal [34]\.\d/);
        expect(said).toMatch(/\n1$/);
      } finally {
        await line(guest(), 'fsfreeze -u /srv/data');
      }
      expect(await frozen(guest())).toBe(false);
      const before = await count(guest());
      await expect.poll(() => count(guest()), { timeout: 10_000 }).toBeGreaterThan(before);
    });

    test('the agent is killed: the next one thaws the service, and the journal comes back', async () => {
      await using host = await requester(guest());
      await host.coordinator.freeze({ requester: 'test', leaseMs: LEASE_MS, require: 'filesystem' });
      await log(guest(), 'two');
      const before = await count(guest());
      await guest().exec(['/bin/kill', '-KILL', String(await guestPid(guest(), { unit: 'fsfreeze-agent.service' }))]);
      await expect.poll(() => frozen(guest()), { timeout: 20_000 }).toBe(false);
      await expect.poll(() => count(guest()), { timeout: 10_000 }).toBeGreaterThan(before);
      await expect.poll(() => onDisk(guest()), { timeout: 10_000 }).toMatch(/two$/);
    });

    test('agent and freezer are killed at once: all is thawed, and the journal comes back', async () => {
      await waitForAgent(guest());
      await using host = await requester(guest());
      await host.coordinator.freeze({ requester: 'test', leaseMs: LEASE_MS, require: 'filesystem' });
      await log(guest(), 'three');
      const pids = await Promise.all(
        ['agent', 'freezer'].map((name) => guestPid(guest(), { unit: `fsfreeze-${name}.service` })),
      );
      const before = await count(guest());
      const killedMs = performance.now();
      await line(guest(), `kill -STOP ${pids.join(' ')}; kill -KILL ${pids.join(' ')}`);
      await expect.poll(() => count(guest()), { timeout: 40_000 }).toBeGreaterThan(before);
      expect(performance.now() - killedMs).toBeLessThan(10_000);
      await expect.poll(() => onDisk(guest()), { timeout: 10_000 }).toMatch(/three$/);
    });
  });
});
