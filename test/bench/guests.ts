// The guest of the benches: our agent on one channel, the stock qemu-ga on a second one, the same client for both.
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Deadline } from '../../src/deadline.js';
import { DeadlineError } from '../../src/errors.js';
import type { AgentChannel } from '../../src/testing/agent-channel.js';
import {
  bootGuest,
  installedGuest,
  restoreGuest,
  waitForAgent,
  type Guest,
  type QemuGuest,
  type UserModeGuest,
} from '../../src/testing/index.js';
import { agentImage } from '../support/agent-guest.js';

const deb = fileURLToPath(new URL('../../build/fsfreeze-agent.deb', import.meta.url));

export async function benchGuest(): Promise<QemuGuest> {
  return await restoreGuest(await installedGuest({ debs: [deb] }));
}

/** The same as a process of this machine, in which code runs natively. */
export async function userModeBenchGuest(): Promise<UserModeGuest> {
  const guest = await bootGuest({ kind: 'user-mode', image: await agentImage() });
  try {
    await waitForAgent(guest);
    return guest;
  } catch (cause) {
    await guest[Symbol.asyncDispose]();
    throw cause;
  }
}

/** Switches our writers off: the peer has none. */
export async function withoutWriters(guest: Pick<Guest, 'exec'>): Promise<void> {
  await guest.exec(`d=/etc/fsfreeze-bridge/fsfreeze-hook.d; mkdir -p $d
    for hook in /usr/lib/fsfreeze-bridge/fsfreeze-hook.d/*; do ln -sf /dev/null $d/$(basename $hook); done
    systemctl stop 'postgresql@*'`);
}

/** Adds a disk with a filesystem of its own, mounted at /srv/NAME. Gives the mount point. */
export async function addFilesystem(guest: Guest, name: string, type: 'ext4' | 'xfs'): Promise<string> {
  const { path } = await guest.addBlankDisk(name, 400);
  const options = type === 'ext4' ? '-q -E lazy_itable_init=0,lazy_journal_init=0' : '-q';
  await guest.exec(`mkfs.${type} ${options} ${path} && mkdir -p /srv/${name} && mount ${path} /srv/${name}`, {
    timeoutMs: 60_000,
  });
  return `/srv/${name}`;
}

export interface FreezeAndThaw {
  readonly frozen: number;
  readonly thawed: number;
  /** Freeze request sent to thaw reply received, in milliseconds. */
  readonly windowMs: number;
}

const ANSWER_LIMIT_MS = 60_000;
const THAW_LIMIT_MS = 300_000;

/** Freeze, then thaw at once, as a requester whose cut takes no time. Throws a DeadlineError if an answer takes a minute. */
export async function freezeAndThaw(agent: AgentChannel): Promise<FreezeAndThaw> {
  const start = performance.now();
  const frozen = Number(await agent.execute('guest-fsfreeze-freeze', undefined, ANSWER_LIMIT_MS));
  const thawed = Number(await agent.execute('guest-fsfreeze-thaw', undefined, ANSWER_LIMIT_MS));
  return { frozen, thawed, windowMs: performance.now() - start };
}

/** After a freeze or thaw that was given up: sees to it that the agent says `thawed`. Throws if it does not in 5 minutes. */
export async function thawAtLast(agent: Pick<AgentChannel, 'execute'>, limitMs = THAW_LIMIT_MS): Promise<void> {
  const deadline = new Deadline(limitMs);
  for (;;) {
    try {
      // Both in turn with what it may still be at; a thaw with nothing frozen is none.
      await agent.execute('guest-fsfreeze-thaw', undefined, Math.max(1, deadline.remainingMs));
      if ((await agent.execute('guest-fsfreeze-status', undefined, ANSWER_LIMIT_MS)) === 'thawed') return;
    } catch (error) {
      if (deadline.passed) throw error;
    }
    if (deadline.passed) throw new DeadlineError('the thaw after a freeze that was given up', limitMs);
    await sleep(100);
  }
}
