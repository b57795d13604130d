// What fails between libvirt and a guest agent, through a real libvirtd, with the stock qemu-ga and with ours: libvirt
// sends no thaw after a time-out, and whether the guest comes back is the agent's matter. With ours it does, at the latest
// when the lease ends; and a thaw that comes later than that is an error, so that virsh reports one.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Reverter } from '../../src/reverter.js';
import { guestPid, signalGuest } from '../../src/testing/index.js';
import { addWriter } from '../support/agent-guest.js';
import { failures, hook, type FailureName } from '../support/failures.js';
import { guestSeconds } from '../support/first-write.js';
import { LIBVIRT_NEEDS, LibvirtHost, type VirshResult } from '../support/libvirt.js';
import type { LibvirtDomain } from '../support/libvirt-domain.js';
import { said } from '../support/libvirt-flow.js';
import { domainState, startDomain, type AgentKind } from '../support/libvirt-state.js';
import { requires } from '../support/requires.js';
import { recordWrites, type WriteGaps } from '../support/write-gaps.js';

const BUILD_LIMIT_MS = 500_000;
const WATCHED = ['/var/tmp', '/srv/lv-xfs'];
/** Of our agent here, for a plain freeze; 60 s if it is not set. */
const LEASE_S = 5;
/** A lease would have ended, and a loaded machine was late besides. */
const STAYS_S = LEASE_S + 3;
const UNIT = { stock: 'stock-agent.service', ours: 'fsfreeze-agent.service' };

/** A domain with one agent and one hook that can be told to fail; all tests of an agent share it. */
class Peer implements AsyncDisposable {
  readonly domain: LibvirtDomain;
  readonly agent: AgentKind;
  #gaps: WriteGaps | undefined;
  #snapshot = '';

  private constructor(domain: LibvirtDomain, agent: AgentKind) {
    this.domain = domain;
    this.agent = agent;
  }

  static async start(host: LibvirtHost, agent: AgentKind): Promise<Peer> {
    const domain = await startDomain(host, agent);
    await domain.exec(['/bin/systemctl', 'stop', 'postgresql@*']);
    if (agent === 'ours') await domain.configureAgent(`[bridge]\nlease-ms=${LEASE_S * 1000}\n`);
    return new Peer(domain, agent);
  }

  /** Thawed, nothing recorded, no time-out: whatever the test before has left. */
  async reset(): Promise<void> {
    await this.#gaps?.[Symbol.asyncDispose]();
    this.#gaps = undefined;
    await this.signalAgent('CONT');
    await this.agentTimeout(-2);
    await this.domain.virsh('domfsthaw'); // it fails if a lease has ended, or by the stock agent's hook
    await this.hook(hook(''));
    await this.domain.run('domfsthaw');
    await this.domain.exec('rm -f /run/hook-*');
    this.#snapshot = `cut-${crypto.randomUUID()}`;
    this.#gaps = await recordWrites(this.domain, WATCHED);
  }

  get #recorded(): WriteGaps {
    if (this.#gaps === undefined) throw new Error('reset comes first');
    return this.#gaps;
  }

  /** In place of the stock dispatcher, which takes no notice of a hook's exit code; with ours, a writer. */
  async hook(script: string): Promise<void> {
    if (this.agent === 'ours') await addWriter(this.domain, '10-hook', script);
    else await this.domain.exec('cat >/etc/qemu/fsfreeze-hook', { input: script });
  }

  async hookWasTold(verb: 'freeze' | 'thaw'): Promise<boolean> {
    return (await this.domain.exec(['/bin/test', '-e', `/run/hook-${verb}`], { check: false })).exitCode === 0;
  }

  async snapshot(): Promise<VirshResult> {
    const words = [this.#snapshot, '--disk-only', '--atomic', '--quiesce'];
    const { stdout, ...rest } = await this.domain.virsh('snapshot-create-as', words);
    return { ...rest, stdout: stdout.replace(this.#snapshot, 'cut') };
  }

  /** Where the domain writes. */
  async disks(): Promise<'on overlays' | 'as before'> {
    const sources = await this.domain.sources();
    const overlays = sources.filter((file) => file.endsWith(`.${this.#snapshot}`)).length;
    if (overlays !== 0 && overlays !== sources.length) throw new Error(`some disks are cut: ${sources.join(' ')}`);
    return overlays === 0 ? 'as before' : 'on overlays';
  }

  async agentTimeout(seconds: number): Promise<void> {
    await this.domain.run('guest-agent-timeout', '--timeout', String(seconds));
  }

  async signalAgent(signal: 'STOP' | 'CONT'): Promise<void> {
    await signalGuest(this.domain, await guestPid(this.domain, { unit: UNIT[this.agent] }), signal);
  }

  /** Watches for `forS` seconds of the guest whether it is held, and for how long. */
  async watch(forS: number): Promise<Fate> {
    const end = (await guestSeconds(this.domain)) + forS;
    for (;;) {
      const { openS, longestS } = await this.#recorded.now();
      if (openS > STAYS_S) return 'stays frozen';
      // The agent counts from its first FIFREEZE, a writer from the write before it.
      if (openS < 1 && longestS > LEASE_S - 1 && longestS < LEASE_S + 2) return 'was thawed by its lease';
      if (openS < 1 && (await guestSeconds(this.domain)) > end) return 'takes writes';
      await sleep(200);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#gaps?.[Symbol.asyncDispose]();
    await this.domain[Symbol.asyncDispose]();
  }
}

/** What became of the guest, in the words of the table's cells. */
type Fate = 'takes writes' | 'was thawed by its lease' | 'stays frozen';

interface Seen {
  readonly virsh: string;
  readonly disks?: 'on overlays' | 'as before';
  readonly guest: Fate;
  /** The hook was told to thaw. */
  readonly released: boolean;
}

interface Row {
  readonly run: (peer: Peer) => Promise<Seen>;
  readonly seen: Readonly<Record<AgentKind, Seen>>;
}

const NO_ANSWER = '1: Guest agent is not responding: Guest agent not available for now';
const LEASE_ENDED = /^1: thawed after 5(\.\d)? s, before the requester asked: the snapshot is not consistent$/;
const TAKEN = '0: Domain snapshot cut created';

const rows: Readonly<Record<FailureName, Row>> = {
  hookFailsAtFreeze: {
    run: async (peer) => await snapshotWith(peer, hook('exit 1')),
    seen: {
      stock: {
        virsh: '1: fsfreeze hook has failed with status 1',
        disks: 'as before',
        guest: 'takes writes',
        released: false,
      },
      ours: {
        virsh:
          '1: a required writer failed: 10-hook: freeze: exit 1 (hook-failure=lower in [bridge] freezes all the same)',
        disks: 'as before',
        guest: 'takes writes',
        released: true,
      },
    },
  },
  hookFailsAtThaw: {
    run: async (peer) => await snapshotWith(peer, hook('', 'exit 1')),
    seen: {
      stock: {
        virsh: '1: fsfreeze hook has failed with status 1',
        disks: 'on overlays',
        guest: 'takes writes',
        released: true,
      },
      ours: { virsh: TAKEN, disks: 'on overlays', guest: 'takes writes', released: true },
    },
  },
  slowFreeze: {
    async run(peer) {
      await peer.hook(hook('sleep 8'));
      const taking = peer.snapshot();
      await toldToFreeze(peer);
      const start = performance.now();
      const ping = await peer.domain.virsh('qemu-agent-command', ['{"execute":"guest-ping"}']);
      const waited = performance.now() - start > 4000 ? 'waits' : 'at once';
      const virsh = `${said(await taking)}; guest-ping: ${said(ping)}, ${waited}`;
      return { virsh, disks: await peer.disks(), guest: await peer.watch(0), released: await peer.hookWasTold('thaw') };
    },
    seen: both({
      virsh: `${TAKEN}; guest-ping: 0: {"return":{}}, waits`,
      disks: 'on overlays',
      guest: 'takes writes',
      released: true,
    }),
  },
  timeout: {
    async run(peer) {
      await peer.agentTimeout(5);
      return await snapshotWith(peer, hook('sleep 8'), 30);
    },
    seen: {
      stock: { virsh: NO_ANSWER, disks: 'as before', guest: 'stays frozen', released: false },
      ours: { virsh: NO_ANSWER, disks: 'as before', guest: 'was thawed by its lease', released: true },
    },
  },
  timeoutThenThaw: {
    async run(peer) {
      await peer.hook(hook('sleep 9'));
      await peer.agentTimeout(2);
      const freezing = peer.domain.virsh('domfsfreeze');
      await toldToFreeze(peer);
      const freeze = await freezing;
      await peer.agentTimeout(5);
      const thaw = await peer.domain.virsh('domfsthaw');
      const virsh = `${said(freeze)}; ${said(thaw)}`;
      return { virsh, guest: await peer.watch(8), released: await peer.hookWasTold('thaw') };
    },
    seen: {
      stock: { virsh: `${NO_ANSWER}; ${NO_ANSWER}`, guest: 'stays frozen', released: false },
      ours: { virsh: `${NO_ANSWER}; 0: Thawed 0 filesystem(s)`, guest: 'takes writes', released: true },
    },
  },
  agentStopped: {
    async run(peer) {
      await peer.hook(hook(''));
      await peer.agentTimeout(5);
      await peer.signalAgent('STOP');
      const taken = await peer.snapshot();
      await peer.signalAgent('CONT');
      const guest = await peer.watch(30);
      return { virsh: said(taken), disks: await peer.disks(), guest, released: await peer.hookWasTold('thaw') };
    },
    seen: {
      stock: { virsh: NO_ANSWER, disks: 'as before', guest: 'stays frozen', released: false },
      ours: { virsh: NO_ANSWER, disks: 'as before', guest: 'was thawed by its lease', released: true },
    },
  },
  agentSilent: {
    async run(peer) {
      await peer.hook(hook(''));
      await peer.agentTimeout(5);
      await peer.signalAgent('STOP');
      const ping = ['--timeout', '1', '{"execute":"guest-ping"}'];
      const before = await freezesSent(peer);
      const first = await peer.domain.virsh('qemu-agent-command', ping);
      const freeze = await peer.domain.virsh('domfsfreeze');
      await peer.signalAgent('CONT');
      const later = await peer.domain.virsh('qemu-agent-command', ping);
      const sent = (await freezesSent(peer)) > before ? 'sent' : 'never sent';
      const virsh = `${said(first)}; freeze ${sent}: ${said(freeze)}; ${said(later)}`;
      return { virsh, guest: await peer.watch(0), released: await peer.hookWasTold('thaw') };
    },
    seen: both({
      virsh: `${NO_ANSWER}; freeze never sent: ${NO_ANSWER}; 0: {"return":{}}`,
      guest: 'takes writes',
      released: false,
    }),
  },
};

function both(seen: Seen): Row['seen'] {
  return { stock: seen, ours: seen };
}

async function snapshotWith(peer: Peer, script: string, watchS = 0): Promise<Seen> {
  await peer.hook(script);
  const taken = await peer.snapshot();
  const guest = await peer.watch(watchS);
  return { virsh: said(taken), disks: await peer.disks(), guest, released: await peer.hookWasTold('thaw') };
}

/** How often libvirtd has handed the command to the agent's socket, by its own log. */
async function freezesSent(peer: Peer): Promise<number> {
  return (await peer.domain.host.log()).split(`Send command '{"execute":"guest-fsfreeze-freeze"`).length - 1;
}

async function toldToFreeze(peer: Peer): Promise<void> {
  await peer.domain.exec('until [ -e /run/hook-freeze ]; do sleep 0.05; done');
}

requires(...LIBVIRT_NEEDS)('failures under libvirt', () => {
  describe.each(['stock', 'ours'] as const)('%s', (agent) => {
    const atEnd = new Reverter();
    let host: LibvirtHost;
    let peer: Peer;
    beforeAll(async () => {
      await domainState(agent);
      host = await LibvirtHost.start();
      atEnd.push('libvirtd', async () => {
        await host[Symbol.asyncDispose]();
      });
      peer = await Peer.start(host, agent);
      atEnd.push('domain', async () => {
        await peer[Symbol.asyncDispose]();
      });
    }, BUILD_LIMIT_MS);
    afterAll(async () => {
      await atEnd.revert();
    });
    beforeEach(async () => {
      await peer.reset();
    });

    for (const [name, { fault }] of Object.entries(failures)) {
      test(fault, async () => {
        const { run, seen } = rows[name as FailureName];
        expect(await run(peer)).toEqual(seen[agent]);
      });
    }

    if (agent === 'stock') return;

    test('domfsthaw after the lease fails once, and says why', async () => {
      await peer.domain.run('domfsfreeze');
      expect(await peer.watch(30)).toBe('was thawed by its lease');
      expect(said(await peer.domain.virsh('domfsthaw'))).toMatch(LEASE_ENDED);
      expect(said(await peer.domain.virsh('domfsthaw'))).toBe('0: Thawed 0 filesystem(s)');
    });

    test('snapshot-create-as --quiesce fails if the lease ended between freeze and thaw', async () => {
      await peer.hook(hook('sleep 2'));
      const taking = peer.snapshot();
      await toldToFreeze(peer);
      // The host is slow: libvirtd has sent the freeze and goes on when the guest has long been writing again.
      await host.signal('STOP');
      const fate = await peer.watch(30);
      await host.signal('CONT');
      expect(fate).toBe('was thawed by its lease');
      expect(said(await taking)).toMatch(LEASE_ENDED);
      // As after any thaw that fails: the domain writes to the overlays, and only domblklist tells.
      expect(await peer.disks()).toBe('on overlays');
      expect(said(await peer.domain.virsh('domfsfreeze'))).toBe('0: Froze 6 filesystem(s)');
      expect(said(await peer.domain.virsh('domfsthaw'))).toBe('0: Thawed 6 filesystem(s)');
    });
  });
});
