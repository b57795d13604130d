// A disk in the guest that answers no more (device-mapper, suspended): in the sync, in FIFREEZE, in FITHAW. It is given up
// in its limit and named; the next freeze works without it, commands are served, and it is thawed when its disk answers
// (qga/freezer/README.md, "What hangs"). Disks that answer with errors: bad-disk.test.ts.
import { afterEach, expect, test } from 'vitest';
import type { QgaClient } from '../../src/qga/client.js';
import { waitForAgent, type Guest } from '../../src/testing/index.js';
import { addWriter, agentGuest, removeWriters, requester, userModeAgent } from '../support/agent-guest.js';
import { isThorough, kernels } from '../support/variants.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';

const LIMIT = { timeoutMs: 60_000, timeout: 60_000 };
const CONF = `[bridge]
prepare-budget-s=3
freeze-limit-ms=2000
`;
const setup = (device: string): string => `set -e
mkdir -p /srv/hung /etc/qemu && cat >/etc/qemu/qemu-ga.conf
echo "0 $(blockdev --getsz ${device}) linear ${device} 0" | dmsetup create hung
mkfs.ext4 -q /dev/mapper/hung && mount /dev/mapper/hung /srv/hung
dd if=/dev/zero of=/srv/hung/file bs=1M count=4 conv=fsync 2>/dev/null
systemctl restart fsfreeze-agent
`;
// Something to write, and no disk that takes it.
const STALL =
  'dmsetup suspend --nolockfs --noflush hung; dd if=/dev/urandom of=/srv/hung/file bs=1M count=1 conv=notrunc 2>/dev/null';
const GO_ON = 'dmsetup resume --noudevsync hung';

const suites = [
  ...kernels('7.2').map((kernel) => ({
    name: `kernel ${kernel}`,
    needs: USER_MODE,
    start: async (): Promise<Guest> => await userModeAgent({ kernel }),
  })),
  ...(isThorough
    ? [{ name: 'in QEMU', needs: ['qemu-system-x86_64', 'qemu-img', 'mmdebstrap'], start: agentGuest }]
    : []),
];

for (const { name, needs, start } of suites)
  requires(...needs)(`a disk that answers no more, ${name}`, () => {
    const shared = sharedGuest(start, async (guest) => {
      const { path } = await guest.addBlankDisk('hung', 64);
      await guest.exec(setup(path), { timeoutMs: 120_000, input: CONF });
      await waitForAgent(guest);
    });
    afterEach(async () => {
      // After a test that failed.
      await removeWriters(shared(), '10-spy', '10-stall');
      await shared().exec(GO_ON);
    });
    const left = async (): Promise<string> =>
      (await shared().exec('cat /run/fsfreeze-bridge/frozen.left-* 2>/dev/null | grep -v ^fsfreeze', { check: false }))
        .stdout;
    const goOn = async (): Promise<void> => {
      await shared().exec(GO_ON);
      await expect.poll(left, { timeout: 20_000 }).toBe('');
      await shared().exec('echo x >/srv/hung/written && sync -f /srv/hung');
    };
    const frozenAndThawed = async (client: QgaClient): Promise<readonly unknown[]> => [
      await client.call('guest-fsfreeze-freeze', {}, LIMIT),
      await client.call('guest-fsfreeze-thaw', {}, LIMIT),
    ];
    /** What is not frozen is served, by the agent that is there and by one started anew. */
    const expectServed = async (client: QgaClient): Promise<void> => {
      expect(await client.call('guest-fsfreeze-status', {}, LIMIT)).toBe('thawed');
      const mounted = (await client.call('guest-get-fsinfo', {}, LIMIT)).map(({ mountpoint }) => mountpoint);
      expect(mounted).toContain('/');
      expect(await frozenAndThawed(client)).toEqual([2, 2]);
      const { report } = await client.call('bridge-status', {}, LIMIT);
      const { filesystems = [], level } = report ?? {};
      const reason = expect.stringContaining('given up by session') as string;
      expect(filesystems.find(({ mountpoint }) => mountpoint === '/srv/hung')).toMatchObject({ held: 'none', reason });
      expect(level).toBe('crash');
    };

    test('its sync hangs: the freeze is refused before a writer is held, the next one works without it', async () => {
      await addWriter(shared(), '10-spy', '#!/bin/sh\necho "$1" >>/run/spy.log\n');
      await using host = await requester(shared());
      await shared().exec(STALL);
      const begun = performance.now();
      await expect(host.client.call('guest-fsfreeze-freeze', {}, LIMIT)).rejects.toThrow(
        /not synced within [23]\d\d\d ms, and nothing was held for it: \/srv\/hung/,
      );
      expect(performance.now() - begun).toBeLessThan(10_000);
      expect((await shared().exec('cat /run/spy.log', { check: false })).stdout).not.toContain('freeze');
      await removeWriters(shared(), '10-spy');
      await expectServed(host.client);
      await goOn();
      expect(await frozenAndThawed(host.client)).toEqual([3, 3]);
    });

    test('its FIFREEZE hangs: given up in its limit, thawed when it returns, and in nobody else’s way', async () => {
      await addWriter(shared(), '10-stall', `#!/bin/sh\n[ "$1" = freeze ] || exit 0\n${STALL}\n`);
      await using host = await requester(shared());
      const begun = performance.now();
      await expect(host.client.call('guest-fsfreeze-freeze', {}, LIMIT)).rejects.toThrow(
        /not frozen within 2000 ms, given up, the rest is thawed: \/srv\/hung/,
      );
      expect(performance.now() - begun).toBeLessThan(15_000);
      await removeWriters(shared(), '10-stall');
      expect(await left()).toMatch(/^intended \d+ \d+:\d+ \/srv\/hung\n$/);
      await expectServed(host.client);

      await shared().exec('systemctl restart fsfreeze-agent');
      await expect
        .poll(async () => await host.client.call('guest-ping', {}, { timeoutMs: 2_000 }).catch(String), LIMIT)
        .toEqual({});
      await expectServed(host.client);

      // It returns in the middle of a later session, which is left alone.
      expect(await host.client.call('guest-fsfreeze-freeze', {}, LIMIT)).toBe(2);
      await goOn();
      expect(await host.client.call('guest-fsfreeze-thaw', {}, LIMIT)).toBe(2);
      expect(await frozenAndThawed(host.client)).toEqual([3, 3]);
    });

    test('its FITHAW hangs: that thaw is an error, and nothing else is', async () => {
      await using host = await requester(shared());
      expect(await host.client.call('guest-fsfreeze-freeze', {}, LIMIT)).toBe(3);
      await shared().exec('dmsetup suspend --nolockfs --noflush hung');
      await expect(host.client.call('guest-fsfreeze-thaw', {}, LIMIT)).rejects.toThrow(/thaw of \/srv\/hung/);
      expect(await left()).toMatch(/^frozen \d+ \d+:\d+ \/srv\/hung\n$/);
      await expectServed(host.client);
      await goOn();
      expect(await frozenAndThawed(host.client)).toEqual([3, 3]);
    });

    test('the freezer is upgraded while a FIFREEZE hangs: its successor serves, and thaws it', async () => {
      await addWriter(shared(), '10-stall', `#!/bin/sh\n[ "$1" = freeze ] || exit 0\n${STALL}\n`);
      await using host = await requester(shared());
      await expect(host.client.call('guest-fsfreeze-freeze', {}, LIMIT)).rejects.toThrow('/srv/hung');
      await removeWriters(shared(), '10-stall');
      // It stays for what hangs, and is killed; what it was inside is left to `--thaw-marked`, and to its successor.
      await shared().exec('systemctl restart fsfreeze-freezer', LIMIT);
      expect(await frozenAndThawed(host.client)).toEqual([2, 2]);
      await shared().exec(GO_ON);
      await expect.poll(left, { timeout: 20_000 }).toBe('');
      await shared().exec('echo x >/srv/hung/written && sync -f /srv/hung');
      expect(await frozenAndThawed(host.client)).toEqual([3, 3]);
    });
  });
