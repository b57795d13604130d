// Faults at a named step: whatever dies or hangs, the guest comes back by itself, its writers are released, the label is
// never too high, and the next snapshot works without help. The matrix is data; the runner is one function.
import { setTimeout as sleep } from 'node:timers/promises';
import * as v from 'valibot';
import { beforeAll, expect, test } from 'vitest';
import { satisfies } from '../../src/consistency.js';
import { Reverter } from '../../src/reverter.js';
import {
  armInGuest,
  armSignal,
  MOMENTS,
  proxySocket,
  stallDisk,
  type Armed,
  type Guest,
} from '../../src/testing/index.js';
import { addWriter, agentGuest, agentState, bridgeProcess, requester } from '../support/agent-guest.js';
import { requires } from '../support/requires.js';

const BUILD_LIMIT_MS = 500_000;
const LEASE_MS = 4000;
/** From the end of the lease to the first write: the promise is 1 s; the rest is for a machine that is busy. */
const BACK_MS = 10_000;

const steps = ['hold', 'freeze', 'frozen'] as const;
type Step = (typeof steps)[number];
const faults = ['agent SIGKILL', 'freezer SIGKILL', 'host tool SIGKILL', 'writer hangs'] as const;
type Fault = (typeof faults)[number];

/** When the step has come, as the guest sees it. */
const moments: Readonly<Record<Step, string>> = {
  hold: '[ -e /run/holding ]',
  freeze: MOMENTS.freezing,
  frozen: MOMENTS.frozen,
};

// Waits in its freeze until the test has prepared the step, and leaves behind the process that is its hold. Its thaw
// waits for that process: one that is stopped makes it hang until it is killed at its limit.
const WRITER = `#!/bin/sh
# fsfreeze-writer: phases=freeze verify thaw
# fsfreeze-writer: rank=20
# fsfreeze-writer: timeout.thaw=2
# fsfreeze-writer: guarantee=held
case $1 in
freeze)
  trap '' PIPE
  ( trap 'exit 0' TERM; while :; do sleep 0.2; done ) & echo $! >/run/hold.pid
  : >/run/holding
  n=0; until [ -e /run/go ]; do n=$((n+1)); [ $n -lt 80 ] || exit 1; sleep 0.1; done ;;
verify) kill -0 $(cat /run/hold.pid) ;;
thaw)
  : >/run/thaw-begun
  [ -e /run/hold.pid ] || exit 0
  kill -TERM $(cat /run/hold.pid) 2>/dev/null
  while kill -0 $(cat /run/hold.pid) 2>/dev/null; do sleep 0.1; done
  rm -f /run/hold.pid /run/holding; : >/run/released ;;
esac
`;
/** A second writer, of a lower rank: released after the first one, whatever became of that. */
const BYSTANDER = `#!/bin/sh
# fsfreeze-writer: phases=freeze verify thaw
# fsfreeze-writer: rank=10
# fsfreeze-writer: guarantee=held
: >/run/bystander-$1
`;

async function there(guest: Guest, file: string): Promise<boolean> {
  return (await guest.exec(['/bin/test', '-e', file], { check: false })).exitCode === 0;
}

/** Both filesystems take a write that reaches the disk. */
async function takesWrites(guest: Guest): Promise<boolean> {
  const write = (file: string) => `timeout 2 dd if=/dev/zero of=${file} bs=4k count=1 conv=fsync 2>/dev/null`;
  const { exitCode } = await guest.exec(`${write('/var/tmp/probe')} && ${write('/srv/data/probe')}`, {
    check: false,
    timeoutMs: 60_000,
  });
  return exitCode === 0;
}

async function armFault(guest: Guest, fault: Fault, step: Step): Promise<Armed> {
  const moment = moments[step];
  switch (fault) {
    case 'agent SIGKILL':
      return await armSignal(guest, moment, { unit: 'fsfreeze-agent.service' }, 'KILL');
    case 'freezer SIGKILL':
      return await armSignal(guest, moment, { unit: 'fsfreeze-freezer.service' }, 'KILL');
    case 'writer hangs':
      return await armInGuest(guest, moment, 'kill -STOP $(cat /run/hold.pid)');
    case 'host tool SIGKILL':
      return await armInGuest(guest, moment, ':');
  }
}

interface Attempt {
  /** The level that the requester was told for what it cut, or undefined if nothing was. */
  readonly level: string | undefined;
}

/** Our own agent client as the requester: freeze, hold for a moment, thaw. */
async function byClient(guest: Guest): Promise<Attempt> {
  await using host = await requester(guest, { freezeMs: 10_000 });
  try {
    const session = await host.coordinator.freeze({ requester: 'test', leaseMs: LEASE_MS, require: 'filesystem' });
    await sleep(1000);
    return { level: (await session.thaw()).level };
  } catch {
    return { level: undefined }; // refused, failed or lost: the requester must not use what it cut
  }
}

const Created = v.looseObject({ level: v.optional(v.string()) });

/** The host tool as the requester, killed when `fired`. Its transaction's answer is held back, so that it stays frozen. */
async function byTool(guest: Guest, fired: Promise<void>): Promise<Attempt> {
  await using proxy = await proxySocket(guest.qmpPath, `${guest.dir}/proxy.sock`);
  const tool = bridgeProcess(guest, ['snapshot', 'create', '--lease', String(LEASE_MS / 1000)], { qmp: proxy.path });
  await expect.poll(async () => await there(guest, '/run/holding'), { timeout: 60_000 }).toBe(true);
  proxy.holdReplies();
  await fired;
  tool.kill('SIGKILL');
  const { stdout } = await tool;
  return { level: stdout === '' ? undefined : v.parse(Created, JSON.parse(stdout)).level };
}

/** One cell of the matrix. */
async function run(fault: Fault, step: Step): Promise<void> {
  await using guest = await agentGuest();
  await using undo = new Reverter();
  await addWriter(guest, '20-holder', WRITER);
  await addWriter(guest, '10-bystander', BYSTANDER);
  const armed = await armFault(guest, fault, step);
  const attempt = fault === 'host tool SIGKILL' ? byTool(guest, armed.fired) : byClient(guest);

  await expect.poll(async () => await there(guest, '/run/holding'), { timeout: 60_000 }).toBe(true);
  if (step === 'freeze') {
    // A FIFREEZE that has something to write, on a disk that does not take it, is still under way at the fault.
    const stalled = await stallDisk(guest, 'data');
    undo.push('stalled disk', async () => {
      await stalled[Symbol.asyncDispose]();
    });
    await guest.exec('dd if=/dev/zero of=/srv/data/dirty bs=1M count=8 2>/dev/null');
  }
  await guest.exec(': >/run/go');
  await armed.fired; // throws if the fault never fired: then nothing was tested
  await undo.revert();
  const { level } = await attempt;

  await expect.poll(async () => await takesWrites(guest), { timeout: LEASE_MS + BACK_MS }).toBe(true);
  await expect.poll(async () => await there(guest, '/run/thaw-begun'), { timeout: BACK_MS }).toBe(true);
  await expect.poll(async () => await there(guest, '/run/bystander-thaw'), { timeout: BACK_MS }).toBe(true);
  if (fault !== 'writer hangs') {
    await expect.poll(async () => await there(guest, '/run/released'), { timeout: BACK_MS }).toBe(true);
    // Nothing that the fault hit was held to the end: no promise may have been made.
    if (level !== undefined) expect(satisfies('crash', v.parse(v.picklist(['none', 'crash']), level))).toBe(true);
  }
  expect((await guest.exec(['/bin/cat', '/sys/kernel/rcu_expedited'])).stdout.trim()).toBe('0');

  await guest.exec('kill -KILL $(cat /run/hold.pid) 2>/dev/null; rm -f /run/hold.pid /run/holding; : >/run/go', {
    check: false,
  });
  await nextSnapshotWorks(guest);
}

async function nextSnapshotWorks(guest: Guest): Promise<void> {
  await using host = await requester(guest);
  const session = await host.coordinator.freeze({ requester: 'next', leaseMs: 20_000, require: 'application' });
  expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('faults', () => {
  beforeAll(agentState, BUILD_LIMIT_MS);

  test.for(faults.flatMap((fault) => steps.map((step) => ({ fault, step }))))(
    '$fault at $step',
    async ({ fault, step }) => {
      await run(fault, step);
    },
  );
});
