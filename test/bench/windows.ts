// bench -- windows: what a freeze costs with 1, 3 and 6 filesystems and no hooks, our agent and stock qemu-ga in turns
// on one guest. In a user-mode guest code runs natively, and a grace period of RCU, for which qemu-ga's FIFREEZE and
// FITHAW wait, costs nothing on its one processor. Write stall: the longest gap an O_DIRECT writer saw on the worst filesystem. Reply window: freeze
// request sent to thaw reply received.
import { setTimeout as sleep } from 'node:timers/promises';
import { DeadlineError } from '../../src/errors.js';
import { AgentChannel } from '../../src/testing/agent-channel.js';
import { startStallProbe, type StallProbe } from '../../src/testing/stall-probe.js';
import type { Guest, GuestKind } from '../../src/testing/index.js';
import { addFilesystem, benchGuest, freezeAndThaw, thawAtLast, userModeBenchGuest, withoutWriters } from './guests.js';
import { compare, measure, worst, type PeerSample, type Row } from './table.js';

const ROUNDS = 20;
/** The worst of the rounds, in our medians. */
const WORST_LIMIT = 3;
/** Not counted, of either side: an emulator translates every line of a restored guest's code when it first runs. */
const WARM_UP_ROUNDS = 3;
/** Long enough that no sample lives on the grace period of the one before. */
const PAUSE_MS = 200;
const LIMITS = [
  { count: 1, stall: 0.5, reply: 1.5 },
  { count: 3, stall: 0.25, reply: 0.8 },
  { count: 6, stall: 0.2, reply: 0.5 },
] as const;

export async function windows(kind: GuestKind): Promise<readonly Row[]> {
  await using guest: Guest = kind === 'qemu' ? await benchGuest() : await userModeBenchGuest();
  await withoutWriters(guest);
  await guest.exec(['/bin/umount', '/srv/data']);
  await using ours = new AgentChannel(guest.qgaPath);
  const mounted = ['/'];
  const rows: Row[] = [];
  for (const { count, stall, reply } of LIMITS) {
    if (count > 1 && !mounted.includes('/srv/data')) {
      await guest.exec(['/bin/mount', '/srv/data']);
      mounted.push('/srv/data');
    }
    while (mounted.length < count) {
      mounted.push(await addFilesystem(guest, `extra${mounted.length}`, mounted.length % 2 === 0 ? 'ext4' : 'xfs'));
    }
    rows.push(...(await measureWith(guest, ours, mounted, stall, reply)));
  }
  return rows;
}

async function measureWith(
  guest: Guest,
  ours: AgentChannel,
  mounted: readonly string[],
  stallLimit: number,
  replyLimit: number,
): Promise<readonly Row[]> {
  await using probe = await startStallProbe(guest, mounted);
  const nothing: number[] = [];
  const samples = {
    ours: { stall: [] as number[], reply: [] as number[] },
    peer: { stall: [] as PeerSample[], reply: [] as PeerSample[] },
  };
  const knob = await rcuExpedited(guest);
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    await probe.reset();
    await sleep(PAUSE_MS);
    const gapMs = await probe.longestGapMs();
    if (round >= 0) nothing.push(gapMs);
    await expectKnob(guest, knob);
    const our = await sample(probe, () => freezeAll(ours, mounted.length, 'ours'));
    await expectKnob(guest, knob);
    const theirs = await sample(probe, () => freezeAllInTime(guest.stockAgent, mounted.length));
    if (round < 0) continue;
    samples.ours.stall.push(our.stallMs);
    samples.ours.reply.push(our.windowMs);
    samples.peer.stall.push(typeof theirs.windowMs === 'number' ? theirs.stallMs : { atLeast: theirs.stallMs });
    samples.peer.reply.push(theirs.windowMs);
  }
  const name = `${mounted.length} filesystem${mounted.length === 1 ? '' : 's'}`;
  return [
    measure(`${name}: longest gap with nothing frozen, ms`, nothing, null),
    compare(`${name}: write stall, ms`, samples.ours.stall, samples.peer.stall, stallLimit),
    compare(`${name}: reply window, ms`, samples.ours.reply, samples.peer.reply, replyLimit),
    worst(`${name}: worst write stall of ${ROUNDS}, in our medians`, samples.ours.stall, WORST_LIMIT),
    worst(`${name}: worst reply window of ${ROUNDS}, in our medians`, samples.ours.reply, WORST_LIMIT),
  ];
}

async function sample<T>(probe: StallProbe, freeze: () => Promise<T>): Promise<{ stallMs: number; windowMs: T }> {
  await probe.reset();
  // After it: the command that resets the probe must be over and gone.
  await sleep(PAUSE_MS);
  const windowMs = await freeze();
  await sleep(50);
  return { stallMs: await probe.longestGapMs(), windowMs };
}

async function freezeAll(agent: AgentChannel, count: number, side: string): Promise<number> {
  const { frozen, thawed, windowMs } = await freezeAndThaw(agent);
  if (frozen !== count || thawed !== count) {
    throw new Error(`${side}: expected ${count} filesystems frozen and thawed, found ${frozen} and ${thawed}`);
  }
  return windowMs;
}

/** A peer that does not answer in time is given up, and thawed. */
async function freezeAllInTime(agent: AgentChannel, count: number): Promise<PeerSample> {
  const start = performance.now();
  try {
    return await freezeAll(agent, count, 'peer');
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    const atLeast = performance.now() - start;
    console.error(`peer: given up: ${error.message}`);
    await thawAtLast(agent);
    return { atLeast };
  }
}

async function expectKnob(guest: Guest, knob: string): Promise<void> {
  if ((await rcuExpedited(guest)) !== knob) throw new Error('rcu_expedited was not put back');
}

async function rcuExpedited(guest: Guest): Promise<string> {
  // A kernel for one processor has none.
  return (await guest.exec('cat /sys/kernel/rcu_expedited 2>/dev/null || echo absent')).stdout.trim();
}
