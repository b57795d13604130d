// npm run torture -- backup-guest --count N [--json]: a guest with PostgreSQL under load, files that come and are discarded,
// and a disk that grows; one full backup and N increments. Each run is restored, compared byte for byte with a copy that
// QEMU made in the same transaction, booted, and compared with what the clients of the database were told.
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { describeError } from '../../src/errors.js';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import type { QemuGuest } from '../../src/testing/index.js';
import { amcheckFaults, bootCut, compareContents, refusalOf } from '../../vm-images/demo/database.js';
import { startLoad, type Load } from '../../vm-images/demo/load.js';
import { agentGuest, bridge, bridgeResult, toolProcess } from '../support/agent-guest.js';
import { ReferenceProxy } from './backup-guest/reference-proxy.js';

const MIB = 1024 * 1024;
const TRANSACTIONS = 300;
const GROWING = { name: 'growing', fromMiB: 64, toMiB: 96 } as const;

export interface BackupGuestOptions {
  /** Increments. */
  readonly count: number;
  readonly json: boolean;
}

interface Point {
  readonly run: RunManifest;
  readonly copies: ReadonlyMap<string, string>;
  readonly folder: string;
}

interface Judged {
  readonly run: string;
  readonly kinds: readonly string[];
  readonly copiedMiB: number;
  /** Disks whose restored bytes are others than those of the copy. */
  readonly differing: readonly string[];
  readonly acknowledged: number;
  readonly complaints: readonly string[];
}

/** Gives the exit code: 0 if every run held. */
export async function runBackupGuest({ count, json }: BackupGuestOptions): Promise<number> {
  const say = json ? console.error : console.log;
  const begin = performance.now();
  await using guest = await agentGuest();
  const repository = path.join(guest.dir, 'repository');
  const growing = await guest.addBlankDisk(GROWING.name, GROWING.fromMiB);
  await guest.exec(`mkfs.ext4 -q ${growing.path}; mkdir -p /srv/growing; mount ${growing.path} /srv/growing`);
  const load = await startLoad(guest.postgresPort, 4);
  const points: Point[] = [];
  try {
    for (let index = 0; index <= count; index++) {
      await churn(guest, load, index, index === Math.ceil(count / 2));
      points.push(await backUp(guest, repository, index));
      say(`     ${index}: ${describe(points.at(-1))}`);
    }
    await moreTransactions(load, TRANSACTIONS / 3);
  } finally {
    await load.stop();
  }
  const judged: Judged[] = [];
  for (const point of points) {
    judged.push(await judge(repository, point, load));
    const { run, differing, acknowledged, complaints, copiedMiB } = judged.at(-1) as Judged;
    const isGood = differing.length + complaints.length === 0;
    say(
      `${isGood ? 'ok  ' : 'FAIL'} ${run}: ${acknowledged} acknowledged, ${copiedMiB.toFixed(1)} MiB${isGood ? '' : `: ${[...differing.map((name) => `${name} differs`), ...complaints].join('; ')}`}`,
    );
  }
  const failed = judged.filter(({ differing, complaints }) => differing.length + complaints.length > 0).length;
  const seconds = (performance.now() - begin) / 1000;
  say(`${judged.length} runs in ${seconds.toFixed(0)} s, ${failed} did not hold`);
  if (json) console.log(JSON.stringify({ torture: 'backup-guest', runs: judged, failed, seconds }));
  return failed === 0 ? 0 : 1;
}

/** What a guest does between two backups: transactions, files that come and go, blocks that are discarded. */
async function churn(guest: QemuGuest, load: Load, index: number, grows: boolean): Promise<void> {
  await guest.exec(
    `dd if=/dev/urandom of=/srv/growing/file-${index} bs=1M count=3 2>/dev/null; rm -f /srv/growing/file-${index - 2}
dd if=/dev/urandom of=/var/tmp/file-${index} bs=1M count=4 2>/dev/null; rm -f /var/tmp/file-${index - 1}
sync; fstrim /srv/growing; fstrim /`,
    { timeoutMs: 120_000 },
  );
  if (grows) {
    const size = GROWING.toMiB * MIB;
    await guest.monitor.execute('block_resize', { 'node-name': GROWING.name, size });
    await guest.exec(`until [ "$(blockdev --getsize64 ${guest.disk(GROWING.name).path})" = ${size} ]; do sleep 0.1; done
resize2fs ${guest.disk(GROWING.name).path} 2>/dev/null`);
  }
  await moreTransactions(load, TRANSACTIONS);
}

async function moreTransactions(load: Load, count: number): Promise<void> {
  const goal = load.transactions.length + count;
  while (load.transactions.length < goal) await sleep(20);
}

async function backUp(guest: QemuGuest, repository: string, index: number): Promise<Point> {
  const folder = path.join(guest.dir, `point-${index}`);
  await mkdir(folder);
  const disks = await Promise.all(
    guest.disks.map(async ({ node, path: device }) => {
      const { stdout } = await guest.exec(`blockdev --getsize64 ${device}`);
      return { node, size: Number(stdout) };
    }),
  );
  await using proxy = await ReferenceProxy.start(guest, disks, folder);
  const words = ['backup', 'run', '--to', repository, index === 0 ? '--full' : '--auto', '--require', 'application'];
  const made = await bridge(guest, words, { qmp: proxy.path });
  if (made.exitCode !== 0) throw new Error(`backup ${index}: exit ${made.exitCode ?? '-'}: ${made.stderr}`);
  return { run: made.json as RunManifest, copies: await proxy.copies(), folder };
}

function describe(point: Point | undefined): string {
  return (point?.run.disks ?? [])
    .map(({ serial, kind, copiedBytes }) => `${serial ?? '-'} ${kind} ${(copiedBytes / MIB).toFixed(1)} MiB`)
    .join(', ');
}

async function judge(repository: string, point: Point, load: Load): Promise<Judged> {
  const { run, copies, folder } = point;
  const target = path.join(folder, 'restored');
  const restored = await bridgeResult(toolProcess(['backup', 'restore', run.run, target, '--from', repository]));
  if (restored.exitCode !== 0) throw new Error(`restore of ${run.run}: ${restored.stderr}`);
  const fileOf = (serial: string): string => {
    const disk = run.disks.find((each) => each.serial === serial);
    return path.join(target, disk?.file.name ?? '');
  };
  const differing: string[] = [];
  for (const [node, copy] of copies) {
    const words = ['compare', '-f', 'raw', '-F', 'qcow2', copy, fileOf(node)];
    const { exitCode, stdout } = await execa('qemu-img', words, { reject: false });
    if (exitCode !== 0) differing.push(`${node} (${stdout.trim()})`);
  }
  const complaints: string[] = [];
  let acknowledged = 0;
  const image = (serial: string) => ({ file: fileOf(serial), format: 'qcow2' as const });
  try {
    await using booted = await bootCut({ root: image('root'), data: image('data') });
    const refusal = await refusalOf(booted);
    if (refusal === undefined) {
      const { freezeRequestedMs = NaN, thawAnsweredMs = NaN } = run.timings.marks;
      const known = await compareContents(booted.postgresPort, load.transactions, freezeRequestedMs, thawAnsweredMs);
      acknowledged = known.acknowledgedBefore;
      if (known.missing > 0) complaints.push(`${known.missing} acknowledged transactions are missing`);
      if (known.foreign > 0) complaints.push(`${known.foreign} transactions are of after the thaw`);
      const faults = await amcheckFaults(booted);
      if (faults !== '') complaints.push(faults);
    } else complaints.push(refusal);
  } catch (error) {
    // A guest that is too slow here, perhaps: it did not hold, and the others are judged all the same.
    complaints.push(`it could not be looked at: ${describeError(error)}`);
  }
  await rm(folder, { recursive: true });
  return {
    run: run.run,
    kinds: run.disks.map(({ kind }) => kind),
    copiedMiB: run.disks.reduce((sum, { copiedBytes }) => sum + copiedBytes, 0) / MIB,
    differing,
    acknowledged,
    complaints,
  };
}
