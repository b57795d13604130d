// bench -- virsh: what a snapshot of five disks with six filesystems costs the guest's applications. The peer is `virsh
// snapshot-create-as --disk-only --atomic --quiesce` with the stock agent and its dispatcher of hooks; ours is
// `fsfreeze-bridge snapshot create` with our agent, on a domain of the same making and on plain QEMU. In turns, the same
// probes in all three: the longest gap of an O_DIRECT writer on the worst filesystem, and the longest wait of an
// application that needs locks which hooks take at freeze and give back at thaw.
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Guest } from '../../src/testing/guest.js';
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

const ROUNDS = 8;
/** Not counted: an emulator translates every line of a restored guest's code when it first runs. */
const WARM_UP_ROUNDS = 2;
const HOOKS = 10;
const PAUSE_MS = 300;
const LOCKS = '/run/fsb-locks';
const LIMITS = { plainStall: 0.3, domainStall: 0.6, wait: 0.5 } as const;

/** One of the three: how its guest is cut, and everything merged back afterwards. */
interface Side {
  readonly guest: ProbedGuest;
  cut(name: string): Promise<void>;
  putBack(name: string): Promise<void>;
}

interface Sample {
  readonly stallMs: number;
  readonly waitMs: number;
}

export async function virsh(): Promise<readonly Row[]> {
  await using stockHost = await LibvirtHost.start();
  await using stock = await startDomain(stockHost, 'stock');
  await using ourHost = await LibvirtHost.start();
  await using ours = await startDomain(ourHost, 'ours');
  await using plain = await plainGuest();
  for (const guest of [ours, plain]) await withoutWriters(guest);
  await stock.exec(['/bin/systemctl', 'stop', 'postgresql@15-main']);
  const sides = { peer: virshSide(stock), domain: domainSide(ours), plain: plainSide(plain) };
  const without = await measureAll(sides, 'none');
  await stock.exec(hooks('/etc/qemu/fsfreeze-hook.d', ''));
  for (const guest of [ours, plain]) await guest.exec(hooks('/etc/fsfreeze-bridge/fsfreeze-hook.d', DESCRIPTION));
  const withHooks = await measureAll(sides, 'hooks');
  const native = await nativeHooks(HOOKS);
  const of = (samples: readonly Sample[], what: keyof Sample): number[] => samples.map((sample) => sample[what]);
  const stall = (which: typeof without, side: 'domain' | 'plain', label: string, limit: number | null): Row =>
    compare(`${label}: write stall, ms`, of(which[side], 'stallMs'), of(which.peer, 'stallMs'), limit);
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

/** Our agent on plain QEMU, its disks and filesystems made as the domain's are. */
async function plainGuest(): Promise<Guest> {
  const guest = await benchGuest();
  try {
    for (const name of ['ext', 'btrfs', 'lvm']) await guest.addBlankDisk(name, 512);
    await guest.exec(FILESYSTEMS, { timeoutMs: 120_000 });
    return guest;
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    throw error;
  }
}

function virshSide(domain: LibvirtDomain): Side {
  return {
    guest: domain,
    cut: async (name) => {
      await domain.run('snapshot-create-as', name, '--disk-only', '--atomic', '--quiesce', '--no-metadata');
    },
    putBack: async () => {
      for (const [target, file] of Object.entries(await images(domain))) {
        await domain.run('blockcommit', target, '--active', '--shallow', '--pivot', '--wait');
        await rm(file);
      }
    },
  };
}

function domainSide(domain: LibvirtDomain): Side {
  return {
    guest: domain,
    cut: async (name) => {
      await createOn(domain, name, '--require', 'filesystem');
    },
    putBack: async (name) => {
      const { exitCode, stderr } = await domainBridge(domain, 'snapshot', 'commit', name);
      if (exitCode !== 0) throw new Error(`snapshot commit: ${String(exitCode)}: ${stderr}`);
    },
  };
}

function plainSide(guest: Guest): Side {
  return {
    guest,
    cut: async (name) => {
      await createSnapshot(guest, name, ['--require', 'filesystem']);
    },
    putBack: (name) => commitSnapshot(guest, name),
  };
}

const DESCRIPTION = '# fsfreeze-writer: phases=freeze thaw\n';

/** A line for a shell: hooks that take a lock each at freeze, and give it back at thaw. */
function hooks(folder: string, description: string): string {
  const script = `#!/bin/sh\n${description}case $1 in freeze) mkdir ${LOCKS}/$(basename "$0");; thaw) rmdir ${LOCKS}/$(basename "$0");; esac\n`;
  return `mkdir -p ${folder}; cd ${folder}
    for n in $(seq -w ${HOOKS}); do printf '%s' '${script}' >$n-lock; chmod 755 $n-lock; done`;
}

const SIDES = ['peer', 'domain', 'plain'] as const;
type SideName = (typeof SIDES)[number];

async function measureAll(sides: Readonly<Record<SideName, Side>>, kind: string) {
  const samples = { idle: [] as Sample[], peer: [] as Sample[], domain: [] as Sample[], plain: [] as Sample[] };
  await using peer = await restingProbe(sides.peer.guest);
  await using domain = await restingProbe(sides.domain.guest);
  await using plain = await restingProbe(sides.plain.guest);
  const probes = { peer, domain, plain };
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    console.error(`${kind}: round ${round + WARM_UP_ROUNDS + 1} of ${ROUNDS + WARM_UP_ROUNDS}`);
    const set = `${kind}-${round + WARM_UP_ROUNDS}`;
    for (const name of SIDES) {
      const probe = probes[name];
      await probe.goOn();
      await sleep(PAUSE_MS);
      await probe.reset();
      await sleep(PAUSE_MS);
      const idle = await sampleOf(probe);
      await probe.reset();
      await sleep(PAUSE_MS);
      await sides[name].cut(set);
      await sleep(50);
      const sample = await sampleOf(probe);
      // Its writes are no load of the other guests.
      await probe.rest();
      if (round < 0) continue;
      samples[name].push(sample);
      if (name === 'peer') samples.idle.push(idle);
    }
    await Promise.all(SIDES.map((name) => sides[name].putBack(set)));
  }
  return samples;
}

async function restingProbe(guest: ProbedGuest): Promise<StallProbe> {
  await guest.exec(`mkdir -p ${LOCKS}`);
  const probe = await startStallProbe(guest, [...MOUNTPOINTS, `locks:${LOCKS}`]);
  await probe.rest();
  return probe;
}

async function sampleOf(probe: StallProbe): Promise<Sample> {
  const gaps = await probe.gaps();
  const longest = (ofLocks: boolean): number =>
    Math.max(...gaps.filter(({ directory }) => directory.startsWith('locks:') === ofLocks).map((gap) => gap.longestMs));
  return { stallMs: longest(false), waitMs: longest(true) };
}
