// What the agent keeps of a long life: hosts freeze every few minutes for months.
import { expect, test } from 'vitest';
import { AgentChannel } from '../../src/testing/agent-channel.js';
import { guestPid } from '../../src/testing/faults.js';
import { userModeAgent } from '../support/agent-guest.js';
import { memoryOf } from '../support/guest-memory.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';

/** What an agent keeps that gives nothing back shows within 600; a whole 2,000 is `npm run bench -- idle`'s. */
const FREEZES = 500;

requires(...USER_MODE)('an agent that has frozen often', () => {
  const shared = sharedGuest(async () => await userModeAgent());

  test(
    'is within the limits of an idle one a minute after hundreds of plain freezes in a row',
    { timeout: 600_000 },
    async () => {
      const guest = shared();
      // One filesystem: a freeze keeps as much of it as of two, and takes half the time.
      await guest.exec("systemctl stop 'postgresql@*' && umount /srv/data");
      await using channel = new AgentChannel(guest.qgaPath);
      const units = ['fsfreeze-agent.service', 'fsfreeze-freezer.service'];
      const pids = await Promise.all(units.map(async (unit) => await guestPid(guest, { unit })));
      for (let round = 0; round < FREEZES; round++) {
        expect(await channel.execute('guest-fsfreeze-freeze', undefined, 30_000)).toBe(1);
        expect(await channel.execute('guest-fsfreeze-thaw', undefined, 30_000)).toBe(1);
      }
      // Nobody's new process: that one has forgotten all.
      expect(await Promise.all(units.map(async (unit) => await guestPid(guest, { unit })))).toEqual(pids);
      await expect
        .poll(async () => (await memoryOf(guest, pids)).dirtyMiB, { timeout: 60_000, interval: 5000 })
        .toBeLessThan(20);
      expect((await memoryOf(guest, pids)).rssMiB).toBeLessThan(75);
    },
  );
});
