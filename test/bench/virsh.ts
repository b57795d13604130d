// bench -- virsh: what a snapshot of five disks with six filesystems costs the guest's applications. The peer is `virsh
// snapshot-create-as --disk-only --atomic --quiesce` with the stock agent and its dispatcher of hooks; ours is
// `fsfreeze-bridge snapshot create` with our agent, on a domain of the same making and on plain QEMU. In turns, the same
// probes in all three: the longest gap of an O_DIRECT writer on the worst filesystem, and the longest wait of an
// application that needs locks which hooks take at freeze and give back at thaw.
import { rm } from 'node:fs/promises';
import { DeadlineError } from '../../src/errors.js';
import { Reverter } from '../../src/reverter.js';
import { startStallProbe, type ProbedGuest, type StallProbe } from '../../src/testing/stall-probe.js';
import { commitSnapshot, createSnapshot } from '../../vm-images/demo/bridge.js';
import { createOn, domainBridge, images } from '../support/libvirt-bridge.js';
import { FILESYSTEMS, MOUNTPOINTS } from '../support/libvirt-filesystems.js';
import type { LibvirtDomain } from '../support/libvirt-domain.js';
import { startDomain } from '../support/libvirt-state.js';
import { LibvirtHost } from '../support/libvirt.js';
import { benchGuest, withoutWriters } from './guests.js';
import { nativeHooks } from './native-hooks.js';
import { compare, measure, type Row } from './table.js';
import { measureRounds, type Samples, type Side, type Stalls } from './virsh-rounds.js';

const ROUNDS = 8;
const WARM_UP_ROUNDS = 2;
const HOOKS = 10;
const PAUSE_MS = 300;
/** For each command of virsh with the stock agent; then it is given up. */
const PEER_LIMIT_MS = 60_000;
const LOCKS = '/run/fsb-locks';
const LIMITS = { plainStall: 0.3, domainStall: 0.6, wait: 0.5 } as const;

export async function virsh(): Promise<readonly Row[]> {
  const without = await measureAll('none');
  const withHooks = await measureAll('hooks');
  const native = await nativeHooks(HOOKS);
  const stall = (samples: Samples, side: 'domain' | 'plain', label: string, limit: number | null): Row =>
    compare(`${label}: write stall, ms`, of(samples[side], 'stallMs'), of(samples.peer, 'stallMs'), limit);
  const wait = (side: 'domain' | 'plain', label: string, limit: number | null): Row =>
    compare(`${label}: wait for the locks, ms`, of(withHooks[side], 'waitMs'), of(withHooks.peer, 'waitMs'), limit);
  return [
    measure('longest gap with nothing cut, ms', of(without.idle, 'stallMs'), null),
    stall(without, 'plain', 'plain QEMU, 0 hooks', LIMITS.plainStall),
    stall(without, 'domain', 'domain, 0 hooks', LIMITS.domainStall),
    stall(withHooks, 'plain', `plain QEMU, ${HOOKS} hooks`, null),
    stall(withHooks, 'domain', `domain, ${HOOKS} hooks`, null),
    wait('plain', `plain QEMU, ${HOOKS} hooks`, LIMITS.wait),
    wait('domain', `domain, ${HOOKS} hooks`, LIMITS.wait),
    compare(`natively, without a guest: ${HOOKS} hooks at freeze and thaw, ms`, native.ours, native.peer, null),
  ];
}

function of<T>(samples: readonly Stalls<T>[], what: keyof Stalls<T>): T[] {
  return samples.map((sample) => sample[what]);
}

async function measureAll(kind: 'none' | 'hooks'): Promise<Samples> {
  const withHooks = kind === 'hooks';
  const starts = {
    peer: () => virshSide(withHooks),
    domain: () => domainSide(withHooks),
    plain: () => plainSide(withHooks),
  };
  return await measureRounds(starts, { kind, counted: ROUNDS, warmUp: WARM_UP_ROUNDS, pauseMs: PAUSE_MS });
}

/** A side that ends what was started for it; at once if a later step of the start fails. */
async function started(start: (atEnd: Reverter) => Promise<Omit<Side, typeof Symbol.asyncDispose>>): Promise<Side> {
  const atEnd = new Reverter();
  try {
    return { ...(await start(atEnd)), [Symbol.asyncDispose]: () => atEnd.revert() };
  } catch (error) {
    await atEnd.revert();
    throw error;
  }
}

/** On a libvirtd of its own. */
async function ownDomain(atEnd: Reverter, agent: 'stock' | 'ours'): Promise<LibvirtDomain> {
  const host = await LibvirtHost.start();
  atEnd.push('libvirtd', () => host[Symbol.asyncDispose]());
  const domain = await startDomain(host, agent);
  atEnd.push('the domain', () => domain[Symbol.asyncDispose]());
  return domain;
}

function virshSide(withHooks: boolean): Promise<Side> {
  return started(async (atEnd) => {
    const domain = await ownDomain(atEnd, 'stock');
    await domain.exec(['/bin/systemctl', 'stop', 'postgresql@*']);
    if (withHooks) await domain.exec(hooks('/etc/qemu/fsfreeze-hook.d', ''));
    return {
      probe: await restingProbe(domain),
      cut: async (name) => {
        const words = [name, '--disk-only', '--atomic', '--quiesce', '--no-metadata'];
        await inTime(domain, 'snapshot-create-as', words);
      },
      putBack: async () => {
        for (const [target, file] of Object.entries(await images(domain))) {
          await inTime(domain, 'blockcommit', [target, '--active', '--shallow', '--pivot', '--wait']);
          await rm(file);
        }
      },
    };
  });
}

/** libvirt asks the agent whether it is there before each command, and takes no answer in 5 s for none. */
const agentIsSlow = /agent is not responding|agent not available/i;

async function inTime(domain: LibvirtDomain, command: string, words: readonly string[]) {
  const { exitCode, stderr } = await domain.virsh(command, words, { timeoutMs: PEER_LIMIT_MS });
  if (exitCode === 0) return;
  if (exitCode === undefined) throw new DeadlineError(`virsh ${command}`, PEER_LIMIT_MS, { outcome: 'unknown' });
  if (agentIsSlow.test(stderr)) throw new DeadlineError(`virsh ${command}: ${stderr}`, 5000, { outcome: 'unknown' });
  throw new Error(`virsh ${command}: ${exitCode}: ${stderr}`);
}

function domainSide(withHooks: boolean): Promise<Side> {
  return started(async (atEnd) => {
    const domain = await ownDomain(atEnd, 'ours');
    await withoutWriters(domain);
    if (withHooks) await domain.exec(hooks('/etc/fsfreeze-bridge/fsfreeze-hook.d', DESCRIPTION));
    return {
      probe: await restingProbe(domain),
      cut: async (name) => {
        await createOn(domain, name, '--require', 'filesystem');
      },
      putBack: async (name) => {
        const { exitCode, stderr } = await domainBridge(domain, 'snapshot', 'commit', name);
        if (exitCode !== 0) throw new Error(`snapshot commit: ${String(exitCode)}: ${stderr}`);
      },
    };
  });
}

/** Our agent on plain QEMU, its disks and filesystems made as the domain's are. */
function plainSide(withHooks: boolean): Promise<Side> {
  return started(async (atEnd) => {
    const guest = await benchGuest();
    atEnd.push('the guest', () => guest[Symbol.asyncDispose]());
    for (const name of ['ext', 'btrfs', 'lvm']) await guest.addBlankDisk(name, 512);
    await guest.exec(FILESYSTEMS, { timeoutMs: 120_000 });
    await withoutWriters(guest);
    if (withHooks) await guest.exec(hooks('/etc/fsfreeze-bridge/fsfreeze-hook.d', DESCRIPTION));
    return {
      probe: await restingProbe(guest),
      cut: async (name) => {
        await createSnapshot(guest, name, ['--require', 'filesystem']);
      },
      putBack: (name) => commitSnapshot(guest, name),
    };
  });
}

const DESCRIPTION = '# fsfreeze-writer: phases=freeze thaw\n';

/** A line for a shell: hooks that take a lock each at freeze, and give it back at thaw. */
function hooks(folder: string, description: string): string {
  const script = `#!/bin/sh\n${description}case $1 in freeze) mkdir ${LOCKS}/$(basename "$0");; thaw) rmdir ${LOCKS}/$(basename "$0");; esac\n`;
  return `mkdir -p ${folder}; cd ${folder}
    for n in $(seq -w ${HOOKS}); do printf '%s' '${script}' >$n-lock; chmod 755 $n-lock; done`;
}

/** It ends with its guest, which may be frozen then. */
async function restingProbe(guest: ProbedGuest): Promise<StallProbe> {
  await guest.exec(`mkdir -p ${LOCKS}`);
  const probe = await startStallProbe(guest, [...MOUNTPOINTS, `locks:${LOCKS}`]);
  await probe.rest();
  return probe;
}
