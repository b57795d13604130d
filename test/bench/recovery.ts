// bench -- recovery: from SIGKILL of the agent, and of the freezer, while the guest is frozen, to the moment at which
// every filesystem has taken a write that reached the disk. On the guest's clock, by one process in the guest that
// kills and waits. The stock qemu-ga has no answer: what it froze stays frozen.
import { DeadlineError, UnreachableError } from '../../src/errors.js';
import { AgentChannel } from '../../src/testing/agent-channel.js';
import { guestPid } from '../../src/testing/faults.js';
import type { Guest } from '../../src/testing/index.js';
import { startStockAgent } from '../support/stock-agent.js';
import { benchGuest, withoutWriters } from './guests.js';
import { measure, type Row } from './table.js';

const ROUNDS = 50;
const LIMIT_MS = 1000;
const PEER_WATCH_S = 10;
const PEER_LIMIT_MS = 60_000;
const DIRECTORIES = ['/var/tmp', '/srv/data'];
/** Never what thaws the guest. */
const LEASE_MS = 120_000;

// The writes wait already when the signal is sent; one that went through before would say that nothing was frozen.
const KILL_AND_WRITE = `
use strict; use Fcntl; use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);
my ($pid, $limit, @dirs) = @ARGV;
pipe(my $done, my $tell) or die;
for my $dir (@dirs) {
  next if fork;
  close $done;
  sysopen(my $file, "$dir/recovery", O_WRONLY | O_CREAT | O_DSYNC) or die "$dir: $!";
  syswrite($file, "x" x 512) == 512 or die "$dir: $!";
  syswrite($tell, sprintf("%.6f\\n", clock_gettime(CLOCK_MONOTONIC)));
  exit 0;
}
close $tell;
sleep 0.2;
vec(my $bits = '', fileno($done), 1) = 1;
select($bits, undef, undef, 0) and die "a write went through before the signal\\n";
my $start = clock_gettime(CLOCK_MONOTONIC);
kill('KILL', $pid) == 1 or die "kill $pid: $!\\n";
$SIG{ALRM} = sub { exit 0 }; alarm $limit;
$| = 1;
while (my $at = <$done>) { printf "%.3f\\n", ($at - $start) * 1000 }
`;

export async function recovery(): Promise<readonly Row[]> {
  await using guest = await benchGuest();
  await withoutWriters(guest);
  const agent: number[] = [];
  const freezer: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    agent.push(await afterKill(guest, 'fsfreeze-agent.service'));
    freezer.push(await afterKill(guest, 'fsfreeze-freezer.service'));
  }
  const peer = await afterKillOfPeer();
  if (peer === undefined) console.log(`stock qemu-ga: given up, it did not freeze within ${PEER_LIMIT_MS} ms`);
  else
    console.log(`stock qemu-ga killed while frozen: ${peer} of ${DIRECTORIES.length} writes within ${PEER_WATCH_S} s`);
  return [
    measure(`agent killed: to the first write, median of ${ROUNDS}, ms`, agent, null),
    measure(`agent killed: worst of ${ROUNDS}, ms`, [Math.max(...agent)], LIMIT_MS),
    measure(`freezer killed: to the first write, median of ${ROUNDS}, ms`, freezer, null),
    measure(`freezer killed: worst of ${ROUNDS}, ms`, [Math.max(...freezer)], LIMIT_MS),
    ...(peer === undefined ? [] : [measure(`stock qemu-ga killed: writes within ${PEER_WATCH_S} s`, [peer], null)]),
  ];
}

/** Milliseconds from the signal to the last of the first writes. */
async function afterKill(guest: Guest, unit: string): Promise<number> {
  await using channel = new AgentChannel(guest.qgaPath);
  await channel.waitForPing(60_000);
  await channel.execute('bridge-freeze', { 'lease-ms': LEASE_MS, require: 'filesystem' }, 60_000);
  channel.close();
  const times = await killAndWrite(guest, await guestPid(guest, { unit }), 60);
  if (times.length !== DIRECTORIES.length) throw new Error(`${unit}: ${times.length} writes within 60 s`);
  return Math.max(...times);
}

/** Undefined if it is too slow to be frozen at all. */
async function afterKillOfPeer(): Promise<number | undefined> {
  await using guest = await benchGuest();
  await guest.exec(['/bin/systemctl', 'stop', 'fsfreeze-agent', 'fsfreeze-freezer', guest.image.postgresql.unit]);
  const { path, pid } = await startStockAgent(guest);
  await using channel = new AgentChannel(path);
  try {
    await channel.waitForPing(PEER_LIMIT_MS);
    await channel.execute('guest-fsfreeze-freeze', undefined, PEER_LIMIT_MS);
  } catch (error) {
    if (error instanceof DeadlineError || error instanceof UnreachableError) return undefined;
    throw error;
  }
  return (await killAndWrite(guest, pid, PEER_WATCH_S)).length;
}

async function killAndWrite(guest: Guest, pid: number, limitS: number): Promise<readonly number[]> {
  // The children of one that gave up wait on; its output must not wait for them.
  const words = ['/usr/bin/perl', '-e', KILL_AND_WRITE, String(pid), String(limitS), ...DIRECTORIES];
  const quoted = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
  const out = `/run/recovery-${pid}`;
  await guest.exec(`${quoted} >${out} 2>&1 </dev/null`, { timeoutMs: (limitS + 60) * 1000 });
  const { stdout } = await guest.exec(['/bin/cat', out]);
  return stdout.split('\n').filter(Boolean).map(Number);
}
