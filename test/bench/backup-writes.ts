// bench -- backup-writes: how long durable writes of a guest take while its disk of 4 GiB is copied to a repository on the
// same disk of the host, and while the copy is read for its sums, against those before, in turns. With the default settings,
// which go by what the guest's requests take, and as fast as it goes. Writes in order (a log) wait for a copy of what was
// there once in a cluster; scattered ones at almost every write, until the cluster was copied.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import type { QmpEvent } from '../../src/qmp/events.js';
import type { QemuGuest } from '../../src/testing/index.js';
import { bridge, bridgeResult, toolProcess } from '../support/agent-guest.js';
import { scratch } from '../support/scratch.js';
import { dropCache, fillFile } from './backup-copying.js';
import { guestProgram } from './guest-program.js';
import { benchGuest, withoutWriters } from './guests.js';
import { compare, measure, type Row } from './table.js';

const ROUNDS = 3;
const ALONE_MS = 8000;
const SETTLE_MS = 1000;
/** For its last write, and for what it tells. */
const WRITER_LIMIT_MS = 60_000;
const BACKUP_LIMIT_MS = 600_000;
const P50_LIMIT = 1.3;
/** Of the host's disk: at full speed the guest comes to few writes until all is copied. */
const DISK_MEGABYTES = 4096;
const FEWEST_WRITES = 20;
const FOLDER = '/srv/load';
const FILE = `${FOLDER}/written`;
const PROGRAM = '/run/fsb-bench/guest-writer';
/** Room for ext4's own, besides the file. */
const DISK_ROOM_MEGABYTES = 512;

const PATTERNS = ['in-order', 'scattered'] as const;
const SETTINGS = [
  { name: 'default settings', words: [], p50Limit: P50_LIMIT },
  { name: '--limit none', words: ['--limit', 'none'], p50Limit: null },
] as const;

interface Write {
  /** By the guest's wall clock, which was set to the host's. */
  readonly beganMs: number;
  readonly tookMs: number;
}

interface Round {
  readonly alone: readonly number[];
  readonly copying: readonly number[];
  readonly copyMs: number;
  /** While what was copied is read again. */
  readonly summing: readonly number[];
  readonly hashMs: number;
}

export async function backupWrites(): Promise<readonly Row[]> {
  await using guest = await benchGuest();
  await withoutWriters(guest);
  await addLoadDisk(guest);
  await guest.setClock();
  await measureRound(guest, 'in-order', []); // not counted: an emulator translates code when it first runs
  const rows: Row[] = [];
  for (const pattern of PATTERNS) {
    for (const { name, words, p50Limit } of SETTINGS) {
      const rounds: Round[] = [];
      for (let round = 0; round < ROUNDS; round++) rounds.push(await measureRound(guest, pattern, words));
      rows.push(...rowsOf(`guest writes ${pattern}, ${name}`, rounds, p50Limit));
    }
  }
  return rows;
}

function rowsOf(name: string, rounds: readonly Round[], p50Limit: number | null): readonly Row[] {
  const at = (part: 'alone' | 'copying' | 'summing', share: number): number[] =>
    rounds.map((each) => quantile(each[part], share));
  const took = (part: 'copyMs' | 'hashMs'): number[] => rounds.map((each) => each[part] / 1000);
  return [
    compare(`${name}: p50 while copied / before, ms`, at('copying', 0.5), at('alone', 0.5), p50Limit),
    compare('  p99, ms', at('copying', 0.99), at('alone', 0.99), null),
    compare('  longest, ms', at('copying', 1), at('alone', 1), null),
    measure(`  copying ${DISK_MEGABYTES} MiB, s`, took('copyMs'), null),
    compare('  p50 while it is read for the sums / before, ms', at('summing', 0.5), at('alone', 0.5), p50Limit),
    compare('    p99, ms', at('summing', 0.99), at('alone', 0.99), null),
    measure('    reading, s', took('hashMs'), null),
  ];
}

/** An ext4 almost full of one file of random bytes, mounted in the guest; and the program that writes to it. */
async function addLoadDisk(guest: QemuGuest): Promise<void> {
  using folder = scratch();
  await mkdir(folder.path('tree'));
  await fillFile(folder.path('tree/written'), DISK_MEGABYTES);
  const raw = folder.path('load.raw');
  const size = `${DISK_MEGABYTES + DISK_ROOM_MEGABYTES}M`;
  await execa('mkfs.ext4', ['-q', '-E', 'lazy_itable_init=0', '-d', folder.path('tree'), raw, size]);
  const file = path.join(guest.dir, 'load.qcow2');
  await execa('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, file]);
  const disk = await guest.hotplugDisk(file, { name: 'load' });
  await guest.exec(`mkdir -p ${FOLDER} && mount ${disk.path} ${FOLDER}`);
  await guest.copyIn([await guestProgram('guest-writer', folder)], path.dirname(PROGRAM));
}

/** Writes for a while, then until the disk was backed up. */
async function measureRound(
  guest: QemuGuest,
  pattern: (typeof PATTERNS)[number],
  words: readonly string[],
): Promise<Round> {
  await dropCache(guest.disk('load').file);
  const writer = await guest.start([PROGRAM, FILE, pattern]);
  await sleep(SETTLE_MS);
  const aloneMs = Date.now();
  await sleep(ALONE_MS);
  const untilMs = Date.now();
  using begun = guest.monitor.listen('JOB_STATUS_CHANGE', ({ data }) => data['status'] === 'running');
  const { transfer } = await backUp(guest, words);
  const copyingMs = timeOf(await begun.next(0));
  await guest.exec(['/bin/kill', '-s', 'TERM', String(writer.pid)]);
  const { exitCode, stdout, stderr } = await writer.wait(WRITER_LIMIT_MS);
  if (exitCode !== 0) throw new Error(`guest-writer: exit ${exitCode}: ${stderr}`);
  const writes = stdout.trim().split('\n').map(parseWrite);
  const { copyMs, hashMs } = transfer;
  const copiedMs = copyingMs + copyMs;
  return {
    ...{ alone: durations(writes, aloneMs, untilMs), copyMs, hashMs },
    copying: durations(writes, copyingMs, copiedMs),
    summing: durations(writes, copiedMs, copiedMs + hashMs),
  };
}

/** Of the runs before it none is kept. */
async function backUp(guest: QemuGuest, more: readonly string[]): Promise<RunManifest> {
  const repository = path.join(guest.dir, 'repository');
  const words = ['backup', 'run', '--to', repository, '--full', '--disk', 'load', ...more];
  const { exitCode, json, stderr } = await bridge(guest, words, { timeoutMs: BACKUP_LIMIT_MS });
  if (exitCode !== 0) throw new Error(`backup run: exit ${exitCode ?? '-'}: ${stderr}`);
  const forgotten = await bridgeResult(toolProcess(['backup', 'forget', '--keep', '1', '--repo', repository]));
  if (forgotten.exitCode !== 0) throw new Error(`backup forget: ${forgotten.stderr}`);
  return json as RunManifest;
}

function parseWrite(line: string): Write {
  const [beganUs = NaN, tookUs = NaN] = line.split(' ').map(Number);
  return { beganMs: beganUs / 1000, tookMs: tookUs / 1000 };
}

/** Of the writes that were under way from then to then, in order of their length. Throws if they are too few. */
function durations(writes: readonly Write[], fromMs: number, toMs: number): number[] {
  const within = writes.filter(({ beganMs, tookMs }) => beganMs + tookMs > fromMs && beganMs < toMs);
  if (within.length < FEWEST_WRITES)
    throw new Error(`expected at least ${FEWEST_WRITES} writes in ${toMs - fromMs} ms, found ${within.length}`);
  return within.map(({ tookMs }) => tookMs).sort((a, b) => a - b);
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}

function timeOf({ timestamp: { seconds, microseconds } }: QmpEvent): number {
  return seconds * 1000 + microseconds / 1000;
}
