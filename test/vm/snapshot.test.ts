// The host tool on real guests: what it cuts, what it is worth, and that a guest it could not hold runs on as before.
import { readdir } from 'node:fs/promises';
import * as v from 'valibot';
import { beforeAll, expect, test } from 'vitest';
import { armSignal, guestPid, signalGuest, type QemuGuest } from '../../src/testing/index.js';
import { addWriter, agentGuest, agentState, bridge } from '../support/agent-guest.js';
import { requires } from '../support/requires.js';

const BUILD_LIMIT_MS = 500_000;
/** The others that ship find nothing of theirs in the guest. */
const POSTGRESQL_VERIFIED: unknown = expect.objectContaining({ name: '50-postgresql', verdict: 'verified' });
const FAILING = '#!/bin/sh\n[ "$1" = thaw ] || { echo no luck >&2; exit 1; }\n';

/** Nothing was cut, nothing is frozen, nothing is left of the attempt. */
async function expectUntouched(guest: QemuGuest): Promise<void> {
  await guest.exec('dd if=/dev/zero of=/srv/data/probe bs=4k count=1 conv=fsync 2>/dev/null && sync -f /');
  const named = v.array(v.looseObject({ 'node-name': v.optional(v.string()) }));
  const nodes = v.parse(named, await guest.monitor.execute('query-named-block-nodes', { flat: true }));
  expect(nodes.map((node) => node['node-name']).filter((name) => name?.startsWith('fsb-') === true)).toEqual([]);
  expect((await readdir(guest.dir)).filter((name) => name.includes('.set-'))).toEqual([]);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('the host tool on a guest', () => {
  beforeAll(agentState, BUILD_LIMIT_MS);

  test('cuts both disks at level application, shows, commits', async () => {
    await using guest = await agentGuest();
    const created = await bridge(guest, ['snapshot', 'create', '--name', 'set']);
    expect(created).toMatchObject({
      exitCode: 0,
      json: {
        level: 'application',
        state: 'cut',
        disks: [
          { serial: 'root', pciAddress: '0000:00:05.0', level: 'application', base: { node: 'root' } },
          { serial: 'data', pciAddress: '0000:00:06.0', level: 'application', base: { node: 'data' } },
        ],
        guest: { outcome: 'ok', writers: expect.arrayContaining([POSTGRESQL_VERIFIED]) as unknown },
      },
    });
    const shown = await bridge(guest, ['snapshot', 'show', 'set']);
    expect(shown).toMatchObject({ exitCode: 0, json: { set: 'set', level: 'application' } });
    expect(await bridge(guest, ['snapshot', 'create', '--name', 'set'])).toMatchObject({ exitCode: 2 });
    expect(await bridge(guest, ['snapshot', 'delete', 'set', '--yes'])).toMatchObject({ exitCode: 2 });
    expect(await bridge(guest, ['snapshot', 'commit', 'set'])).toMatchObject({ exitCode: 0 });
    await expectUntouched(guest);
  });

  test('a required writer that fails: nothing is cut; with --allow-lower it is, and labelled', async () => {
    await using guest = await agentGuest();
    await addWriter(guest, '60-failing', FAILING);
    const refused = await bridge(guest, ['snapshot', 'create', '--name', 'set']);
    expect(refused).toMatchObject({ exitCode: 4, json: { error: { exitCode: 4 } } });
    expect(refused.stderr).toContain('60-failing');
    await expectUntouched(guest);
    const lower = await bridge(guest, ['snapshot', 'create', '--name', 'lower', '--allow-lower']);
    expect(lower).toMatchObject({ exitCode: 7, json: { level: 'filesystem', satisfied: false } });
  });

  test('a program in the guest that reads a snapshot of its own lowers nothing', async () => {
    await using guest = await agentGuest();
    const { path } = await guest.addBlankDisk('pv', 300);
    await guest.exec(
      `set -e; modprobe dm-snapshot; vgcreate -q vg ${path}; lvcreate -q -An -y -L 100M -n lv vg
mkfs.ext4 -q /dev/vg/lv; mkdir -p /srv/lv; mount /dev/vg/lv /srv/lv; echo before >/srv/lv/file`,
      { timeoutMs: 60_000 },
    );
    const read = ': >/run/there; until [ -e /run/go ]; do sleep 0.1; done; cat /srv/lv/file';
    const words = ['/usr/bin/fsfreeze-snapshot', 'exec', '--require-snapshot', '/srv/lv', '--', '/bin/sh', '-c', read];
    const program = await guest.start(words);
    await guest.exec('until [ -e /run/there ]; do sleep 0.1; done; echo after >/srv/lv/file', { timeoutMs: 120_000 });
    const created = await bridge(guest, ['snapshot', 'create', '--name', 'set', '--require', 'application']);
    expect(created, created.stderr).toMatchObject({ exitCode: 0, json: { level: 'application', state: 'cut' } });
    await guest.exec(': >/run/go');
    expect(await program.wait(120_000)).toMatchObject({ exitCode: 0, stdout: 'before\n' });
  });

  test('half of the disks of a database is not application', async () => {
    await using guest = await agentGuest();
    const refused = await bridge(guest, ['snapshot', 'create', '--name', 'set', '--disk', 'data']);
    expect(refused).toMatchObject({ exitCode: 4 });
    expect(refused.stderr).toContain('not in the set');
    await expectUntouched(guest);
  });

  test('the stock qemu-ga is worth filesystem at best, and says why', async () => {
    await using guest = await agentGuest();
    guest.stockAgent.close();
    const created = await bridge(guest, ['snapshot', 'create', '--name', 'set'], { qga: guest.stockAgent.path });
    expect(created).toMatchObject({ exitCode: 0, json: { level: 'filesystem' } });
    expect(JSON.stringify(created.json)).toContain('stock qemu-ga');
    const asked = ['snapshot', 'create', '--name', 'more', '--require', 'application'];
    expect(await bridge(guest, asked, { qga: guest.stockAgent.path })).toMatchObject({ exitCode: 4 });
  });

  test('a second agent that holds the guest: nothing is cut', async () => {
    await using guest = await agentGuest();
    // Its checkpoint would wait for the other agent.
    await guest.exec(['/bin/systemctl', 'stop', guest.image.postgresql.unit]);
    expect(await guest.stockAgent.execute('guest-fsfreeze-freeze')).toBe(2);
    const refused = await bridge(guest, ['snapshot', 'create', '--name', 'set']);
    expect(refused).toMatchObject({ exitCode: 4 });
    expect(refused.stderr).toContain('somebody else holds it frozen');
    expect(await guest.stockAgent.execute('guest-fsfreeze-thaw')).toBe(2);
    await expectUntouched(guest);
  });

  test('a paused VM cannot be held: refused, or crash', async () => {
    await using guest = await agentGuest();
    await guest.pause();
    expect(await bridge(guest, ['snapshot', 'create', '--name', 'set'])).toMatchObject({ exitCode: 4 });
    const lower = await bridge(guest, ['snapshot', 'create', '--name', 'lower', '--require', 'crash']);
    expect(lower).toMatchObject({ exitCode: 0, json: { level: 'crash' } });
    await guest.resume();
  });

  test('an agent that never answers: one line, exit 3', async () => {
    await using guest = await agentGuest();
    const agent = await guestPid(guest, { unit: 'fsfreeze-agent.service' });
    await signalGuest(guest, agent, 'STOP');
    const refused = await bridge(guest, ['snapshot', 'create', '--name', 'set', '--agent-timeout', '2']);
    expect(refused).toMatchObject({ exitCode: 3 });
    expect(refused.stderr.trim().split('\n')).toHaveLength(1);
    await signalGuest(guest, agent, 'CONT');
    await expectUntouched(guest);
    expect(await bridge(guest, ['wait', '--timeout', '20'])).toMatchObject({ exitCode: 0 });
  });

  test('an agent that dies on the way to the freeze is noticed by its port, long before the time limit', async () => {
    await using guest = await agentGuest();
    await addWriter(guest, '20-slow', '#!/bin/sh\n[ "$1" = thaw ] || { : >/run/slow; sleep 5; }\n');
    const armed = await armSignal(guest, '[ -e /run/slow ]', { unit: 'fsfreeze-agent.service' }, 'KILL');
    const refused = await bridge(guest, ['snapshot', 'create', '--name', 'set', '--freeze-timeout', '80']);
    await armed.fired;
    expect(refused).toMatchObject({ exitCode: 4, json: { error: { code: 'E_QUIESCE_LOST' } } });
    await expectUntouched(guest);
  }, 60_000);

  test('status and writers tell what a snapshot would meet', async () => {
    await using guest = await agentGuest();
    await addWriter(guest, '60-unsafe', '#!/bin/sh\nexit 0\n');
    await guest.exec('chmod 777 /etc/fsfreeze-bridge/fsfreeze-hook.d/60-unsafe');
    const writers = await bridge(guest, ['writers']);
    expect(writers.exitCode).toBe(0);
    expect(JSON.stringify(writers.json)).toMatch(/60-unsafe.*writable/);
    const status = await bridge(guest, ['status']);
    expect(status.exitCode).toBe(0);
    expect(JSON.stringify(status.json)).toContain('idle');
  });
});
