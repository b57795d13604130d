// What fails between libvirt and a guest agent, with the stock qemu-ga and with ours, side by side, and with our host
// tool in libvirt's place. The requester is a script that does what libvirt 9.0 does (test/support/libvirt-client.ts).
// The table in qga/README.md says what is seen here: its words are this file's.
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, expect, test } from 'vitest';
import { guestPid, signalGuest, waitForAgent, type Guest } from '../../src/testing/index.js';
import { addWriter, agentGuest, agentState, bridge } from '../support/agent-guest.js';
import { guestSeconds } from '../support/first-write.js';
import { LibvirtClient, type Outcome } from '../support/libvirt-client.js';
import { startStockAgent } from '../support/stock-agent.js';
import { requires } from '../support/requires.js';
import { recordWrites, type WriteGaps } from '../support/write-gaps.js';

const BUILD_LIMIT_MS = 500_000;
const EVERYWHERE = ['/var/tmp', '/srv/data'];
/** virsh guest-agent-timeout; libvirt has none of its own. */
const AGENT_TIMEOUT_MS = 5000;
/** Of our agent here, for a plain freeze; 60 s if it is not set. */
const LEASE_S = 6;
/** Long enough to call it for ever: more than twice that. */
const STAYS_S = 15;

/** One agent on a channel of its own, with one hook that can be told to fail. */
interface Peer {
  readonly guest: Guest;
  readonly gaps: WriteGaps;
  readonly path: string;
  readonly pid: () => Promise<number>;
  /** The agent's hook: `$1` is freeze or thaw. */
  readonly hook: (script: string) => Promise<void>;
}

const STOCK_HOOK = '/run/stock/hook';

/** The stock agent, and ours out of its way. */
async function stockPeer(guest: Guest): Promise<Peer> {
  await guest.exec(['/bin/systemctl', 'stop', 'fsfreeze-agent', 'fsfreeze-freezer', 'postgresql@15-main']);
  const { path, pid } = await startStockAgent(guest, { hook: STOCK_HOOK });
  return {
    guest,
    gaps: await recordWrites(guest, EVERYWHERE),
    path,
    pid: () => Promise.resolve(pid),
    hook: async (script) => {
      await guest.exec(`cat >${STOCK_HOOK} && chmod 755 ${STOCK_HOOK}`, { input: script });
    },
  };
}

async function ourPeer(guest: Guest): Promise<Peer> {
  await guest.exec(`printf '[bridge]\\nlease-ms=${LEASE_S * 1000}\\n' >/etc/qemu/qemu-ga.conf`);
  await guest.exec(['/bin/systemctl', 'stop', 'postgresql@15-main']);
  await guest.exec(['/bin/systemctl', 'restart', 'fsfreeze-agent']);
  await waitForAgent(guest);
  return {
    guest,
    gaps: await recordWrites(guest, EVERYWHERE),
    path: guest.qgaPath,
    pid: async () => await guestPid(guest, { unit: 'fsfreeze-agent.service' }),
    hook: async (script) => {
      await addWriter(guest, '10-hook', script);
    },
  };
}

/** What became of the guest, in the words of the table's cells. */
type Fate = 'takes writes' | 'was thawed by its lease' | 'stays frozen';

interface Seen {
  readonly freeze?: string;
  readonly thaw?: string;
  readonly later?: string;
  readonly guest: Fate;
  /** The hook was told to thaw. */
  readonly released: boolean;
}

const say = (outcome: Outcome): string => (outcome.kind === 'time-out' ? `time-out at ${outcome.at}` : outcome.kind);

/** Watches for `forS` seconds of the guest whether it is held, and for how long. */
async function watch({ guest, gaps }: Peer, forS: number): Promise<Fate> {
  const end = (await guestSeconds(guest)) + forS;
  for (;;) {
    const { openS, longestS } = await gaps.now();
    if (openS > STAYS_S) return 'stays frozen';
    // The agent counts from its first FIFREEZE, a writer from the write before it.
    if (openS < 1 && longestS > LEASE_S - 1 && longestS < LEASE_S + 2) return 'was thawed by its lease';
    if (openS < 1 && (await guestSeconds(guest)) > end) return 'takes writes';
    await sleep(200);
  }
}

async function released({ guest }: Peer): Promise<boolean> {
  return (await guest.exec(['/bin/test', '-e', '/run/hook-thaw'], { check: false })).exitCode === 0;
}

// The head is for ours alone: without it a hook's word is a claim, and the tool asks for proof.
const hook = (freeze: string, thaw = ''): string => `#!/bin/sh
# fsfreeze-writer: phases=freeze verify thaw
# fsfreeze-writer: guarantee=held
: >/run/hook-$1
case $1 in
freeze) ${freeze || ':'} ;;
thaw) ${thaw || ':'} ;;
esac
`;

interface Row {
  readonly fault: string;
  /** The cells of the table. */
  readonly stock: string;
  readonly agent: string;
  readonly tool: string;
  /** What libvirt does, and what is seen of it. */
  readonly libvirt: (peer: Peer, client: LibvirtClient) => Promise<Seen>;
  readonly seen: { readonly stock: Seen; readonly agent: Seen };
  /** The same with `snapshot create`: its exit code, and a text of its answer. */
  readonly bridge: (peer: Peer) => Promise<void>;
}

/** `snapshot create`, as far as the table speaks of it. */
async function create(peer: Peer, name = 'set') {
  return await bridge(peer.guest, ['snapshot', 'create', '--name', name]);
}

const rows: readonly Row[] = [
  {
    fault: 'a hook fails at freeze',
    stock: 'snapshot refused; the hook is never told to thaw (under the stock dispatcher its failure is ignored)',
    agent: 'snapshot refused; every hook whose freeze was started is told to thaw',
    tool: 'exit 4, names the hook; nothing cut, nothing frozen',
    async libvirt(peer, client) {
      await peer.hook(hook('exit 1'));
      const freeze = say(await client.call('guest-fsfreeze-freeze'));
      return { freeze, guest: await watch(peer, 0), released: await released(peer) };
    },
    seen: {
      stock: { freeze: 'error', guest: 'takes writes', released: false },
      agent: { freeze: 'error', guest: 'takes writes', released: true },
    },
    async bridge(peer) {
      await peer.hook(hook('exit 1'));
      const created = await create(peer);
      expect(created.exitCode).toBe(4);
      expect(created.stderr).toContain('10-hook');
    },
  },
  {
    fault: 'a hook fails at thaw',
    stock: 'snapshot taken and in use, virsh reports a failure; guest thawed',
    agent: 'snapshot taken; thaw answers the count, the failure is in the report and in the log; guest thawed',
    tool: 'exit 7: the set is kept, labelled `filesystem`, and names the hook',
    async libvirt(peer, client) {
      await peer.hook(hook('', 'exit 1'));
      const freeze = say(await client.call('guest-fsfreeze-freeze'));
      const thaw = say(await client.call('guest-fsfreeze-thaw'));
      return { freeze, thaw, guest: await watch(peer, 0), released: await released(peer) };
    },
    seen: {
      stock: { freeze: 'return', thaw: 'error', guest: 'takes writes', released: true },
      agent: { freeze: 'return', thaw: 'return', guest: 'takes writes', released: true },
    },
    async bridge(peer) {
      await peer.hook(hook('', 'exit 1'));
      const created = await create(peer);
      expect(created).toMatchObject({ exitCode: 7, json: { state: 'cut', level: 'filesystem', satisfied: false } });
      expect(JSON.stringify(created.json)).toContain('10-hook failed: thaw');
    },
  },
  {
    fault: 'the freeze takes 8 s, no time-out set',
    stock: 'libvirt waits, every other agent command behind it',
    agent: 'libvirt waits likewise; a guest-sync, and any request on the local socket, is answered at once',
    tool: 'exit 0: the hook has 10 s (settable), the tool waits longer than all limits of the guest',
    async libvirt(peer, client) {
      await peer.hook(hook('sleep 8'));
      const freezing = client.call('guest-fsfreeze-freeze');
      await sleep(1000);
      const start = performance.now();
      const later = await client.call('guest-ping');
      const waited = performance.now() - start > 4000 ? 'waits' : 'at once';
      const freeze = say(await freezing);
      const thaw = say(await client.call('guest-fsfreeze-thaw'));
      return {
        freeze,
        thaw,
        later: `${say(later)}, ${waited}`,
        guest: await watch(peer, 0),
        released: await released(peer),
      };
    },
    seen: {
      stock: { freeze: 'return', thaw: 'return', later: 'return, waits', guest: 'takes writes', released: true },
      agent: { freeze: 'return', thaw: 'return', later: 'return, waits', guest: 'takes writes', released: true },
    },
    async bridge(peer) {
      await peer.hook(hook('sleep 8'));
      expect(await create(peer)).toMatchObject({ exitCode: 0, json: { level: 'application' } });
    },
  },
  {
    fault: 'guest-agent-timeout 5, the freeze takes 8 s',
    stock:
      'no snapshot; libvirt sends no thaw, the guest freezes later and **stays frozen** until somebody thaws it by hand',
    agent: 'no snapshot; the guest freezes later, and its lease thaws it (60 s, `lease-ms`)',
    tool: 'as above: the tool waits; were it to give up, it would thaw and ask until it is confirmed',
    async libvirt(peer, client) {
      await peer.hook(hook('sleep 8'));
      const freeze = say(await client.call('guest-fsfreeze-freeze', AGENT_TIMEOUT_MS));
      return { freeze, guest: await watch(peer, 40), released: await released(peer) };
    },
    seen: {
      stock: { freeze: 'time-out at command', guest: 'stays frozen', released: false },
      agent: { freeze: 'time-out at command', guest: 'was thawed by its lease', released: true },
    },
    async bridge(peer) {
      await peer.hook(hook('sleep 30'));
      const created = await create(peer);
      expect(created.exitCode).toBe(4);
      expect(await watch(peer, 0)).toBe('takes writes');
    },
  },
  {
    fault: 'the same, and `virsh domfsthaw` at once',
    stock: 'fails: its guest-sync waits behind the freeze',
    agent: 'the guest-sync is answered at once; the thaw ends the freeze that is on its way',
    tool: '`fsfreeze-bridge thaw` does the same',
    async libvirt(peer, client) {
      await peer.hook(hook('sleep 9'));
      const freeze = say(await client.call('guest-fsfreeze-freeze', 2000));
      await peer.guest.exec('until [ -e /run/hook-freeze ]; do sleep 0.05; done');
      const thaw = say(await client.call('guest-fsfreeze-thaw', AGENT_TIMEOUT_MS));
      return { freeze, thaw, guest: await watch(peer, 15), released: await released(peer) };
    },
    seen: {
      stock: { freeze: 'time-out at command', thaw: 'time-out at sync', guest: 'stays frozen', released: false },
      agent: { freeze: 'time-out at command', thaw: 'return', guest: 'takes writes', released: true },
    },
    async bridge(peer) {
      await peer.hook(hook('sleep 9'));
      {
        await using client = await LibvirtClient.connect(peer.path);
        expect(say(await client.call('guest-fsfreeze-freeze', 2000))).toBe('time-out at command');
      }
      expect((await bridge(peer.guest, ['thaw'])).exitCode).toBe(0);
      expect(await watch(peer, 0)).toBe('takes writes');
    },
  },
  {
    fault: 'agent stopped (SIGSTOP), time-out 5, SIGCONT later',
    stock: 'the queued freeze is executed then; nobody thaws: **stays frozen**',
    agent: 'the queued freeze is executed then, and its lease thaws the guest',
    tool: 'exit 3 after 5 s: a guest that does not answer is not asked to freeze',
    async libvirt(peer, client) {
      await peer.hook(hook(''));
      await client.call('guest-ping');
      const pid = await peer.pid();
      await signalGuest(peer.guest, pid, 'STOP');
      const freeze = say(await client.call('guest-fsfreeze-freeze', AGENT_TIMEOUT_MS));
      await signalGuest(peer.guest, pid, 'CONT');
      return { freeze, guest: await watch(peer, 40), released: await released(peer) };
    },
    seen: {
      stock: { freeze: 'time-out at command', guest: 'stays frozen', released: false },
      agent: { freeze: 'time-out at command', guest: 'was thawed by its lease', released: true },
    },
    async bridge(peer) {
      await peer.hook(hook(''));
      const pid = await peer.pid();
      await signalGuest(peer.guest, pid, 'STOP');
      expect((await create(peer)).exitCode).toBe(3);
      await signalGuest(peer.guest, pid, 'CONT');
      await waitForAgent(peer.guest);
      expect(await watch(peer, 0)).toBe('takes writes');
    },
  },
  {
    fault: 'the next call after a time-out, the agent still silent',
    stock: 'its guest-sync has no answer within 5 s, the command is never sent',
    agent: 'the same',
    tool: 'the same: a handshake first',
    async libvirt(peer, client) {
      await peer.hook(hook(''));
      await client.call('guest-ping');
      const pid = await peer.pid();
      await signalGuest(peer.guest, pid, 'STOP');
      const first = say(await client.call('guest-ping', 1000));
      const freeze = say(await client.call('guest-fsfreeze-freeze', AGENT_TIMEOUT_MS));
      await signalGuest(peer.guest, pid, 'CONT');
      const later = say(await client.call('guest-ping', AGENT_TIMEOUT_MS));
      return {
        later: `${first}, then ${later}`,
        freeze,
        guest: await watch(peer, 0),
        released: await released(peer),
      };
    },
    seen: {
      stock: {
        freeze: 'time-out at sync',
        later: 'time-out at command, then return',
        guest: 'takes writes',
        released: false,
      },
      agent: {
        freeze: 'time-out at sync',
        later: 'time-out at command, then return',
        guest: 'takes writes',
        released: false,
      },
    },
    async bridge(peer) {
      const pid = await peer.pid();
      await signalGuest(peer.guest, pid, 'STOP');
      expect((await bridge(peer.guest, ['status'])).exitCode).toBe(3);
      expect((await create(peer)).exitCode).toBe(3);
      await signalGuest(peer.guest, pid, 'CONT');
      await waitForAgent(peer.guest);
      expect((await create(peer, 'next')).exitCode).toBe(0);
    },
  },
];

test('the table in the README is this one', async () => {
  const readme = await readFile(new URL('../../qga/README.md', import.meta.url), 'utf8');
  const cells = (line: string): string[] =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
  const lines = readme.split('\n').filter((line) => line.startsWith('|'));
  const head = ['fault', 'libvirt, stock qemu-ga', 'libvirt, our agent', 'our host tool, our agent'];
  const start = lines.findIndex((line) => cells(line).join() === head.join());
  expect(start).toBeGreaterThanOrEqual(0);
  const table = lines.slice(start + 2, start + 2 + rows.length).map(cells);
  expect(table).toEqual(rows.map(({ fault, stock, agent, tool }) => [fault, stock, agent, tool]));
});

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('failures, as libvirt meets them', () => {
  beforeAll(agentState, BUILD_LIMIT_MS);

  for (const { fault, libvirt, seen, bridge: byTool } of rows) {
    test.for(['stock', 'agent'] as const)(`${fault}: %s`, async (which) => {
      await using guest = await agentGuest();
      const peer = await (which === 'stock' ? stockPeer : ourPeer)(guest);
      await using client = await LibvirtClient.connect(peer.path);
      expect(await libvirt(peer, client)).toEqual(seen[which]);
    });

    test(`${fault}: host tool`, async () => {
      await using guest = await agentGuest();
      await byTool(await ourPeer(guest));
    });
  }
});
