// bench -- in-guest: snapshots inside user-mode guests of two kernels, two logical volumes and five writers that take 20 ms
// to hold: how long applications wait, in turns with dragonsdawn-snapshot's steps on the same guest; how long `exec` takes
// around its command; what its holder takes of memory.
import type { KernelVersion, UserModeGuest } from '../../src/testing/index.js';
import { userModeAgent } from '../support/agent-guest.js';
import { memoryOf } from '../support/guest-memory.js';
import { leftovers } from '../support/in-guest.js';
import { kernels } from '../support/variants.js';
import { withoutWriters } from './guests.js';
import { NOTES, pauseOf, PATHS, PEER, setUpVolumes, takeAway, WRITERS } from './in-guest-volumes.js';
import { compare, measure, type Row } from './table.js';

const ROUNDS = 10;
/** Not counted, of either side: what runs for the first time is read from the disk. */
const WARM_UP_ROUNDS = 2;
const PAUSE_LIMIT = 0.4;
const AROUND_LIMIT_MS = 3000;
const HOLDER_LIMIT_MIB = 15;
const CALL_LIMIT_MS = 120_000;

interface Exec {
  readonly pauseMs: number;
  /** From the start of `exec` to its command's. */
  readonly enterMs: number;
  /** From the command's end to that of `exec`. */
  readonly leaveMs: number;
}

export async function inGuest(): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const kernel of kernels('6.1', '6.12')) rows.push(...(await onKernel(kernel)));
  return rows;
}

async function onKernel(kernel: KernelVersion): Promise<readonly Row[]> {
  await using guest = await userModeAgent({ kernel });
  await withoutWriters(guest);
  await setUpVolumes(guest);
  const ours: Exec[] = [];
  const peer: number[] = [];
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    const our = await execOnce(guest);
    const their = await peerOnce(guest);
    if (round < 0) continue;
    ours.push(our);
    peer.push(their);
  }
  const of = (name: keyof Exec): number[] => ours.map((each) => each[name]);
  const { holderMiB, allMiB } = await memoryOfHolder(guest);
  return [
    compare(`${kernel}: pause against dragonsdawn's steps, ms`, of('pauseMs'), peer, PAUSE_LIMIT),
    measure(`${kernel}: start of exec to its command, ms`, of('enterMs'), AROUND_LIMIT_MS),
    measure(`${kernel}: end of the command to that of exec, ms`, of('leaveMs'), AROUND_LIMIT_MS),
    measure(`${kernel}: private dirty of the holder, MiB`, [holderMiB], HOLDER_LIMIT_MIB),
    measure(`${kernel}: private dirty of the holder and what it has running, MiB`, [allMiB], null),
  ];
}

/** Throws unless each volume was cut as its kernel allows, with every writer held, and nothing is left. */
async function execOnce(guest: UserModeGuest): Promise<Exec> {
  const now = 'cat /proc/uptime';
  const exec = `fsfreeze-snapshot exec --json ${PATHS.join(' ')} -- /bin/${now}`;
  const line = `rm -f ${NOTES}; ${now}; ${exec}; code=$?; ${now}; exit $code`;
  const { stdout, stderr } = await guest.exec(line, { timeoutMs: CALL_LIMIT_MS });
  const way = guest.kernel === '6.1' ? 'per-volume' : 'atomic';
  const cut = stderr.split(`"way":"${way}"`).length - 1;
  if (cut !== PATHS.length) throw new Error(`expected ${PATHS.length} volumes cut ${way}, found ${cut}: ${stderr}`);
  const left = await leftovers(guest);
  if (left !== '') throw new Error(`exec left ${left}`);
  const stamps = stdout.trim().split('\n');
  const [start = NaN, command = NaN, end = NaN] = stamps.map((stamp) => Number(stamp.split(' ')[0]) * 1000);
  return { pauseMs: await pause(guest), enterMs: command - start, leaveMs: end - command };
}

async function peerOnce(guest: UserModeGuest): Promise<number> {
  await guest.exec(`rm -f ${NOTES}; ${PEER}`, { timeoutMs: CALL_LIMIT_MS });
  const pauseMs = await pause(guest);
  await takeAway(guest);
  return pauseMs;
}

async function pause(guest: UserModeGuest): Promise<number> {
  return pauseOf((await guest.exec(['/bin/cat', NOTES])).stdout, WRITERS);
}

/** While a command sees the snapshots, and not counting it. */
async function memoryOfHolder(guest: UserModeGuest): Promise<{ holderMiB: number; allMiB: number }> {
  const command = '/bin/sleep 987';
  const running = await guest.start(`exec fsfreeze-snapshot exec ${PATHS.join(' ')} -- ${command}`);
  const there = `until pgrep -fx '${command}' >/dev/null; do sleep 0.1; done; sleep 2`;
  await guest.exec(there, { timeoutMs: CALL_LIMIT_MS });
  const own = `pgrep -P ${running.pid} | grep -vx "$(pgrep -fx '${command}')"`;
  const children = (await guest.exec(own)).stdout.trim().split('\n').map(Number);
  const holder = await memoryOf(guest, [running.pid]);
  const all = await memoryOf(guest, [running.pid, ...children]);
  await guest.exec(`pkill -fx '${command}'`);
  await running.wait(CALL_LIMIT_MS);
  return { holderMiB: holder.dirtyMiB, allMiB: all.dirtyMiB };
}
