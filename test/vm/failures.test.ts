// Our host tool with our agent, where libvirt with either is seen by libvirt-failures.test.ts: the last line of each item of the
// list in qga/README.md (test/support/failures.ts).
import { readFile } from 'node:fs/promises';
import { beforeAll, expect, test } from 'vitest';
import { guestPid, signalGuest, waitForAgent, type QemuGuest } from '../../src/testing/index.js';
import { addWriter, agentGuest, agentState, bridge } from '../support/agent-guest.js';
import { withFailures } from '../support/failures-list.js';
import { failures, hook, type FailureName } from '../support/failures.js';
import { beginWrites, lastWrite } from '../support/first-write.js';
import { LibvirtClient } from '../support/libvirt-client.js';
import { requires } from '../support/requires.js';

const BUILD_LIMIT_MS = 500_000;
const EVERYWHERE = ['/var/tmp', '/srv/data'];

async function prepare(guest: QemuGuest): Promise<void> {
  await guest.exec(['/bin/systemctl', 'stop', guest.image.postgresql.unit]);
}

async function addHook(guest: QemuGuest, script: string): Promise<void> {
  await addWriter(guest, '10-hook', script);
}

async function agentPid(guest: QemuGuest): Promise<number> {
  return await guestPid(guest, { unit: 'fsfreeze-agent.service' });
}

/** Now, and not because a lease has ended: that of a plain freeze is 60 s. */
async function takesWrites(guest: QemuGuest): Promise<void> {
  await lastWrite(guest, await beginWrites(guest, EVERYWHERE), 10_000);
}

/** `snapshot create`, as far as the table speaks of it. */
async function create(guest: QemuGuest, name = 'set') {
  return await bridge(guest, ['snapshot', 'create', '--name', name]);
}

const byTool: Readonly<Record<FailureName, (guest: QemuGuest) => Promise<void>>> = {
  async hookFailsAtFreeze(guest) {
    await addHook(guest, hook('exit 1'));
    const created = await create(guest);
    expect(created.exitCode).toBe(4);
    expect(created.stderr).toContain('10-hook');
  },
  async hookFailsAtThaw(guest) {
    await addHook(guest, hook('', 'exit 1'));
    const created = await create(guest);
    expect(created).toMatchObject({ exitCode: 7, json: { state: 'cut', level: 'filesystem', satisfied: false } });
    expect(JSON.stringify(created.json)).toContain('10-hook failed: thaw');
  },
  async slowFreeze(guest) {
    await addHook(guest, hook('sleep 8'));
    expect(await create(guest)).toMatchObject({ exitCode: 0, json: { level: 'application' } });
  },
  async timeout(guest) {
    await addHook(guest, hook('sleep 30'));
    const created = await create(guest);
    expect(created.exitCode).toBe(4);
    await takesWrites(guest);
  },
  async timeoutThenThaw(guest) {
    await addHook(guest, hook('sleep 9'));
    {
      await using client = await LibvirtClient.connect(guest.qgaPath);
      expect(await client.call('guest-fsfreeze-freeze', 2000)).toEqual({ kind: 'time-out', at: 'command' });
    }
    expect((await bridge(guest, ['thaw'])).exitCode).toBe(0);
    await takesWrites(guest);
  },
  async agentStopped(guest) {
    await addHook(guest, hook(''));
    const pid = await agentPid(guest);
    await signalGuest(guest, pid, 'STOP');
    expect((await create(guest)).exitCode).toBe(3);
    await signalGuest(guest, pid, 'CONT');
    await waitForAgent(guest);
    await takesWrites(guest);
  },
  async agentSilent(guest) {
    const pid = await agentPid(guest);
    await signalGuest(guest, pid, 'STOP');
    expect((await bridge(guest, ['status'])).exitCode).toBe(3);
    expect((await create(guest)).exitCode).toBe(3);
    await signalGuest(guest, pid, 'CONT');
    await waitForAgent(guest);
    expect((await create(guest, 'next')).exitCode).toBe(0);
  },
};

test('the list in qga/README.md is this one', async () => {
  const readme = await readFile(new URL('../../qga/README.md', import.meta.url), 'utf8');
  expect(readme).toBe(withFailures(readme));
});

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('failures, as our host tool meets them', () => {
  beforeAll(agentState, BUILD_LIMIT_MS);

  for (const [name, { fault }] of Object.entries(failures)) {
    test(fault, async () => {
      await using guest = await agentGuest();
      await prepare(guest);
      await byTool[name as FailureName](guest);
    });
  }
});
