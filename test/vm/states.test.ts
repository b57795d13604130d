// Guests that are paused, saved, restored or booted from what was cut: the lease is the running time of the guest,
// nothing is lost, and the level is what was held (freeze path, "The guest always comes back", rule 2).
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { FreezeReport } from '../../src/consistency.js';
import { Reverter } from '../../src/reverter.js';
import {
  bootGuest,
  restoreGuest,
  saveState,
  stallDisk,
  waitForAgent,
  type QemuGuest,
  type GuestProcess,
} from '../../src/testing/index.js';
import { addWriter, agentGuest, bridge, requester } from '../support/agent-guest.js';
import { beginWrites, guestSeconds, lastWrite, writesDone } from '../support/first-write.js';
import { requires } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';
import { oneIn } from '../support/variants.js';

const MARKER = '/run/fsfreeze-bridge/frozen';
const EVERYWHERE = ['/var/tmp', '/srv/data'];

const steps = ['prepare', 'hold', 'freeze', 'frozen', 'thaw', 'release'] as const;
type Step = (typeof steps)[number];

/** Of every phase of the writer, and the lease. */
const LIMIT_S = 6;
/** Longer than any of them. */
const PAUSE_MS = 8000;

// Waits in prepare, freeze and thaw until it is let go, within its limit.
const WRITER = `#!/bin/sh
# fsfreeze-writer: phases=prepare freeze verify thaw
# fsfreeze-writer: timeout.prepare=${LIMIT_S}
# fsfreeze-writer: timeout.freeze=${LIMIT_S}
# fsfreeze-writer: timeout.thaw=${LIMIT_S}
# fsfreeze-writer: guarantee=held
step() { : >/run/at-$1; until [ -e /run/go-$1 ]; do sleep 0.1; done; }
case $1 in
prepare) step prepare ;;
freeze) step hold ;;
verify) [ -e /run/at-hold ] ;;
thaw) step release ;;
esac
`;

const isBefore = (step: Step): boolean => ['prepare', 'hold', 'freeze'].includes(step);
const isAfter = (step: Step): boolean => ['thaw', 'release'].includes(step);

/** What the guest shows while the step lasts. In thaw, the disk of / does not take the superblock that ends its freeze. */
const moments: Readonly<Record<Step, string>> = {
  prepare: '[ -e /run/at-prepare ]',
  hold: '[ -e /run/at-hold ]',
  freeze: `grep -q '^intended' ${MARKER}`,
  frozen: `grep -q '^frozen' ${MARKER} && ! grep -q '^intended' ${MARKER}`,
  thaw: `grep -q '^thawed' ${MARKER} && grep -q '^frozen' ${MARKER}`,
  release: '[ -e /run/at-release ]',
};

/** Lines with numbers, each made durable before the next one. */
async function startLog(guest: QemuGuest): Promise<GuestProcess> {
  await guest.exec('rm -f /srv/data/log /run/log-ends');
  return await guest.start(
    'n=0; while [ ! -e /run/log-ends ]; do n=$((n+1)); echo $n >>/srv/data/log; sync /srv/data/log || exit 1; done',
  );
}

/** Every line is there, in order, and none failed. */
async function checkLog(guest: QemuGuest, log: GuestProcess): Promise<void> {
  const before = Number((await guest.exec(['/usr/bin/tail', '-n', '1', '/srv/data/log'])).stdout);
  await guest.exec(`until [ "$(tail -n 1 /srv/data/log)" -gt ${before} ]; do sleep 0.05; done; : >/run/log-ends`);
  expect(await log.wait()).toMatchObject({ exitCode: 0, stderr: '' });
  const { stdout } = await guest.exec(`awk '$1 != NR { bad++ } END { print NR, bad + 0 }' /srv/data/log`);
  expect(stdout).toMatch(/^[1-9]\d* 0\n$/);
}

/** One session with the guest paused in `paused`, for longer than any limit of it. */
async function sessionWithPause(guest: QemuGuest, paused: Step): Promise<FreezeReport> {
  await guest.exec('rm -f /run/at-* /run/go-*');
  await addWriter(guest, '20-steps', WRITER);
  // The freeze step is made to last once the writers are held: before, a sync would wait for the disk.
  const waits = paused === 'freeze' ? 'hold' : paused;
  await guest.exec(
    `touch ${steps
      .filter((step) => step !== waits)
      .map((step) => `/run/go-${step}`)
      .join(' ')}`,
  );
  await using host = await requester(guest, { freezeMs: 60_000 });
  await using stalls = new Reverter();
  const stall = async (disk: string): Promise<void> => {
    const stalled = await stallDisk(guest, disk);
    stalls.push(`stalled ${disk}`, async () => {
      await stalled[Symbol.asyncDispose]();
    });
  };
  const pause = async (): Promise<void> => {
    if (paused === 'freeze') {
      await guest.exec(`until ${moments.hold}; do sleep 0.02; done`);
      await stall('data');
      await guest.exec('dd if=/dev/zero of=/srv/data/dirty bs=1M count=8 2>/dev/null; touch /run/go-hold');
    }
    await guest.exec(`until ${moments[paused]}; do sleep 0.02; done 2>/dev/null`);
    await guest.pause();
    expect(await guest.runState()).toBe('paused');
    await sleep(PAUSE_MS);
    await guest.resume();
    await stalls.revert();
    await guest.exec(`touch /run/go-${paused}`);
  };
  const freezing = host.coordinator.freeze({ requester: 'test', leaseMs: LIMIT_S * 1000, require: 'application' });
  const [session] = await Promise.all([freezing, isBefore(paused) ? pause() : undefined]);
  if (paused === 'frozen') await pause();
  if (paused === 'thaw') {
    await stall('root');
    // A throttle that was idle lets one request through: it gets the bytes before the superblock, as they are.
    await guest.exec('dd if=/dev/vda of=/dev/vda bs=512 count=1 oflag=direct conv=notrunc 2>/dev/null');
  }
  const [report] = await Promise.all([session.thaw(), isAfter(paused) ? pause() : undefined]);
  return report;
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('states of a guest', () => {
  // Of the tests with a pause, which show by one more session that they leave it as it was.
  const shared = sharedGuest(agentGuest);

  test.for(oneIn(2, steps))(
    'paused in %s for longer than every limit: held all the same, nothing lost',
    async (step) => {
      const log = await startLog(shared());
      const begun = await guestSeconds(shared());
      const report = await sessionWithPause(shared(), step);
      expect(report).toMatchObject({ state: 'thawed', outcome: 'ok', level: 'application' });
      expect(report.writers.find(({ name }) => name === '20-steps')).toMatchObject({ verdict: 'verified' });
      expect(report.frozenWindowMs).toBeLessThan(LIMIT_S * 1000);
      // The guest's time alone: what it stood still is nowhere in it.
      const endMs = Math.max(...report.steps.map((one) => one.endMs));
      expect(endMs).toBeLessThan(((await guestSeconds(shared())) - begun) * 1000);
      await checkLog(shared(), log);
      await expectNextSession(shared());
    },
  );

  test('saved while frozen and restored later: thawed within what was left of the lease', async () => {
    const LEASE_S = 15; // a busy machine has used 10 of it before the state is saved
    const directory = await mkdtemp(path.join(tmpdir(), 'fsb-frozen-'));
    try {
      const { writes, deadline } = await saveWhileFrozen(directory, LEASE_S * 1000);
      await sleep(LEASE_S * 1000); // the host's time is not spent
      await using guest = await restoreGuest(directory);
      expect(await writesDone(guest, writes)).toEqual([]);
      expect(await guestSeconds(guest)).toBeLessThan(deadline);
      const thawed = await lastWrite(guest, writes, 60_000);
      expect(thawed).toBeGreaterThan(deadline - 0.2);
      expect(thawed).toBeLessThan(deadline + 1);

      await using host = await requester(guest);
      await expect(host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 10_000 })).rejects.toMatchObject({
        desc: expect.stringContaining('before the requester asked: the snapshot is not consistent') as string,
      });
      expect(await host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 10_000 })).toBe(0);
      const { status, report } = await host.client.call('bridge-status', {}, { timeoutMs: 10_000 });
      expect(status).toMatchObject({ state: 'idle' });
      expect(report).toMatchObject({ outcome: 'expired', level: 'crash' });
      await host.client.close();
      await expectNextSession(guest);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test('a snapshot of ours, booted beside the guest it was taken of, comes up thawed and ready', async () => {
    await using guest = await agentGuest();
    const created = await bridge(guest, ['snapshot', 'create', '--name', 'set']);
    expect(created).toMatchObject({ exitCode: 0, json: { level: 'application' } });
    const bases = Object.fromEntries(guest.disks.map(({ node, file, format }) => [node, { file, format }] as const));
    await using second = await bootGuest({ bases });
    await waitForAgent(second);
    expect((await second.exec(['/bin/ls', '/run/fsfreeze-bridge'])).stdout.trim().split('\n')).toEqual([
      'agent-root.sock',
      'agent.sock',
      'freezer.sock',
    ]);
    await lastWrite(second, await beginWrites(second, EVERYWHERE), 30_000);
    expect((await second.exec('dmesg | grep -ciE "ext4-fs error|xfs.*corrupt"', { check: false })).stdout).toBe('0\n');
    await second.startPostgres();
    await expectNextSession(second);
    // The first one never stopped.
    await expectNextSession(guest);
  });
});

interface SavedFrozen {
  readonly writes: Awaited<ReturnType<typeof beginWrites>>;
  /** When its lease ends: seconds of the guest's CLOCK_MONOTONIC. */
  readonly deadline: number;
}

/** A guest that is frozen, with writes that wait, saved into `directory`. */
async function saveWhileFrozen(directory: string, leaseMs: number): Promise<SavedFrozen> {
  await using guest = await agentGuest();
  await using host = await requester(guest);
  await host.coordinator.freeze({ requester: 'test', leaseMs, require: 'application' });
  const writes = await beginWrites(guest, EVERYWHERE);
  const before = await guestSeconds(guest);
  const { remainingMs } = await host.coordinator.status();
  if (remainingMs === undefined) throw new Error('the guest is not frozen');
  // Asked between two looks at the clock: the lease ended at most that much later.
  const deadline = before + remainingMs / 1000;
  expect((await guestSeconds(guest)) - before).toBeLessThan(1);
  expect(await writesDone(guest, writes)).toEqual([]);
  await host.client.close();
  await saveState(guest, directory);
  return { writes, deadline };
}

async function expectNextSession(guest: QemuGuest): Promise<void> {
  await guest.exec('rm -f /etc/fsfreeze-bridge/fsfreeze-hook.d/20-steps');
  await using host = await requester(guest);
  const session = await host.coordinator.freeze({ requester: 'next', leaseMs: 20_000, require: 'application' });
  expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
}
