// bench -- guests: the two kinds of guests beside each other, from the same image with our package and the same recipe's
// kernel: user-mode ("ours") against QEMU ("peer"), with whatever accelerator works here.
import { bootGuest, waitForAgent, type Guest, type GuestKind } from '../../src/testing/index.js';
import { agentImage, requester } from '../support/agent-guest.js';
import { compare, measure, type Row } from './table.js';

const BOOTS = 3;
const ROUNDS = 15;
const WARM_UP_ROUNDS = 3;
const FORKS = 50;
const RATIO_LIMIT = 0.5;
const BOOT_LIMIT_MS = 5000;

interface Samples {
  readonly boot: number[];
  readonly command: number[];
  readonly fork: number[];
  readonly freeze: number[];
}

const KINDS = ['user-mode', 'qemu'] as const satisfies readonly GuestKind[];

export async function guestKinds(): Promise<readonly Row[]> {
  const image = await agentImage();
  const none = (): Samples => ({ boot: [], command: [], fork: [], freeze: [] });
  const samples = { 'user-mode': none(), qemu: none() };
  const boot = async (kind: GuestKind): Promise<Guest> => {
    const start = performance.now();
    const guest = await bootGuest({ kind, image });
    await waitForAgent(guest, 120_000);
    samples[kind].boot.push(performance.now() - start);
    return guest;
  };
  for (let round = 1; round < BOOTS; round++) {
    for (const kind of KINDS) await (await boot(kind))[Symbol.asyncDispose]();
  }
  await using userMode = await boot('user-mode');
  await using qemu = await boot('qemu');
  const guests = { 'user-mode': userMode, qemu };
  for (const kind of KINDS) await guests[kind].startPostgres();
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    for (const kind of KINDS) {
      const taken = await oneRound(guests[kind]);
      if (round < 0) continue;
      for (const what of ['command', 'fork', 'freeze'] as const) samples[kind][what].push(taken[what]);
    }
  }
  const row = (label: string, what: keyof Samples): Row =>
    compare(label, samples['user-mode'][what], samples.qemu[what], RATIO_LIMIT);
  return [
    row('boot to a served agent, ms', 'boot'),
    measure('boot to a served agent, user-mode, ms', samples['user-mode'].boot, BOOT_LIMIT_MS),
    row('a command and its answer, ms', 'command'),
    row('fork and exec of /bin/true, ms', 'fork'),
    row('freeze with the PostgreSQL writer and thaw, ms', 'freeze'),
  ];
}

async function oneRound(guest: Guest): Promise<Record<'command' | 'fork' | 'freeze', number>> {
  let start = performance.now();
  await guest.exec(['/bin/true']);
  const command = performance.now() - start;
  start = performance.now();
  await guest.exec(`n=0; while [ $n -lt ${FORKS} ]; do /bin/true; n=$((n+1)); done`);
  const fork = (performance.now() - start) / FORKS;
  await using host = await requester(guest);
  start = performance.now();
  const session = await host.coordinator.freeze({ requester: 'bench', leaseMs: 30_000, require: 'application' });
  const report = await session.thaw();
  if (report.level !== 'application') throw new Error(`expected level application, found ${report.level}`);
  return { command, fork, freeze: performance.now() - start };
}
