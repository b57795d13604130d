// bench -- windows: what a freeze costs with 1, 3 and 6 filesystems and no hooks, our agent and stock qemu-ga in turns
// on one guest. Write stall: the longest gap an O_DIRECT writer saw on the worst filesystem. Reply window: freeze
// request sent to thaw reply received.
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentChannel } from '../../src/testing/agent-channel.js';
import { startStallProbe, type StallProbe } from '../../src/testing/stall-probe.js';
import type { Guest } from '../../src/testing/guest.js';
import { addFilesystem, benchGuest, freezeAndThaw, withoutWriters } from './guests.js';
import { compare, measure, type Row } from './table.js';

const ROUNDS = 12;
/** Not counted, of either side: an emulator translates every line of a restored guest's code when it first runs. */
const WARM_UP_ROUNDS = 3;
/** Long enough that no sample lives on the grace period of the one before. */
const PAUSE_MS = 200;
const LIMITS = [
  { count: 1, stall: 0.5, reply: 1.5 },
  { count: 3, stall: 0.25, reply: 0.8 },
  { count: 6, stall: 0.2, reply: 0.5 },
] as const;

export async function windows(): Promise<readonly Row[]> {
  await using guest = await benchGuest();
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
    peer: { stall: [] as number[], reply: [] as number[] },
  };
  const knob = await rcuExpedited(guest);
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    await probe.reset();
    await sleep(PAUSE_MS);
    const gapMs = await probe.longestGapMs();
    if (round >= 0) nothing.push(gapMs);
    for (const [side, agent] of [
      ['ours', ours],
      ['peer', guest.stockAgent],
    ] as const) {
      if ((await rcuExpedited(guest)) !== knob) throw new Error('rcu_expedited was not put back');
      const { stallMs, windowMs } = await sample(probe, agent, mounted.length, side);
      if (round < 0) continue;
      samples[side].stall.push(stallMs);
      samples[side].reply.push(windowMs);
    }
  }
  const name = `${mounted.length} filesystem${mounted.length === 1 ? '' : 's'}`;
  return [
    measure(`${name}: longest gap with nothing frozen, ms`, nothing, null),
    compare(`${name}: write stall, ms`, samples.ours.stall, samples.peer.stall, stallLimit),
    compare(`${name}: reply window, ms`, samples.ours.reply, samples.peer.reply, replyLimit),
  ];
}

async function sample(
  probe: StallProbe,
  agent: AgentChannel,
  count: number,
  side: string,
): Promise<{ stallMs: number; windowMs: number }> {
  await probe.reset();
  // After it: the command that resets the probe must be over and gone.
  await sleep(PAUSE_MS);
  const { frozen, thawed, windowMs } = await freezeAndThaw(agent);
  if (frozen !== count || thawed !== count) {
    throw new Error(`${side}: expected ${count} filesystems frozen and thawed, found ${frozen} and ${thawed}`);
  }
  await sleep(50);
  return { stallMs: await probe.longestGapMs(), windowMs };
}

async function rcuExpedited(guest: Guest): Promise<string> {
  return (await guest.exec(['/bin/cat', '/sys/kernel/rcu_expedited'])).stdout.trim();
}
