// What the copying of a backup costs, on whatever VM: a full backup of a disk that no compression makes smaller, against
// `qemu-img convert` of the same disk, in turns, each to the disk and from it; and an increment of 1 % scattered clusters
// against those clusters. No guest runs, so that what is measured is the copying.
import { randomFillSync } from 'node:crypto';
import { open, readFile, rm } from 'node:fs/promises';
import { execa } from 'execa';
import { syncPath } from '../../src/host/images/durable-file.js';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import { compare, measure, type Row } from './table.js';

const ROUNDS = 3;
/** So many that the third of a second which a run takes without any data is no part of what is compared. */
export const DISK_MEGABYTES = 8192;
const CLUSTER_KILOBYTES = 64;
const CHANGED_CLUSTERS = Math.ceil((DISK_MEGABYTES * 1024) / CLUSTER_KILOBYTES / 100);
const CHUNK_BYTES = 64 * 1024 * 1024;
/** At least 0.9 of the throughput. */
const TIME_LIMIT = 1 / 0.9;
const BYTES_LIMIT = 1.1;
const MEBIBYTE = 1024 * 1024;

/** A VM that runs, with one disk that was filled by `fillDisk`. */
export interface CopiedVm {
  /** Before each row's name. */
  readonly label: string;
  readonly image: string;
  /** On the filesystem of the image, empty. */
  readonly folder: string;
  /** QEMU's process. */
  readonly pid: number;
  /** As its guest would. */
  write(pattern: number, offsetKilobytes: number, kilobytes: number): Promise<void>;
  /** By the tool as users run it. Throws unless it exits 0. */
  backUp(repository: string, ...words: readonly string[]): Promise<RunManifest>;
  /** Whoever copies such a VM's disks otherwise, to a qcow2 file that is not there; it returns when all is copied. */
  readonly peer?: { readonly name: string; copy(file: string): Promise<void> };
}

export async function measureCopying(vm: CopiedVm): Promise<readonly Row[]> {
  const { label, image, folder, pid, peer } = vm;
  const [converted, repository] = [`${folder}/converted.qcow2`, `${folder}/repository`];
  const full: number[] = [];
  const convert: number[] = [];
  const byPeer: number[] = [];
  const hash: number[] = [];
  const read: number[] = [];
  const written: number[] = [];
  const stored: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    await dropCache(image);
    convert.push((await timed(() => convertDisk(image, converted))) / 1000);
    await rm(converted);
    if (peer !== undefined) {
      await dropCache(image);
      const copying = async (): Promise<void> => {
        await peer.copy(converted);
        await syncPath(converted);
      };
      byPeer.push((await timed(copying)) / 1000);
      await rm(converted);
    }
    await dropCache(image);
    let made: RunManifest | undefined;
    const tookMs = await timed(async () => {
      // In place of the one that is gone.
      made = await vm.backUp(repository, '--full', '--init');
    });
    const hashMs = made?.transfer.hashMs ?? NaN;
    full.push((tookMs - hashMs) / 1000);
    hash.push(hashMs / 1000);

    // One block in each of scattered clusters.
    for (let count = 0; count < CHANGED_CLUSTERS; count++) {
      const cluster = Math.floor(((count + 0.5) * DISK_MEGABYTES * 1024) / CLUSTER_KILOBYTES / CHANGED_CLUSTERS);
      await vm.write(1 + round, cluster * CLUSTER_KILOBYTES + 8 * round, 4);
    }
    const before = await bytesOf(pid);
    const increment = await vm.backUp(repository, '--incremental');
    const after = await bytesOf(pid);
    read.push((after.read - before.read) / MEBIBYTE);
    written.push((after.written - before.written) / MEBIBYTE);
    stored.push((increment.disks[0]?.file.size ?? NaN) / MEBIBYTE);
    await rm(repository, { recursive: true });
  }
  const changed = [(CHANGED_CLUSTERS * CLUSTER_KILOBYTES) / 1024];
  const convertRow = `${label}: full backup of ${DISK_MEGABYTES} MiB / qemu-img convert, cold, on the disk, s`;
  return [
    compare(convertRow, full, convert, TIME_LIMIT),
    ...(peer === undefined ? [] : [compare(`  the same / ${peer.name}, s`, full, byPeer, TIME_LIMIT)]),
    measure('  reading it again for its sums, s', hash, null),
    compare(`${label}: increment of 1 %, scattered: read by QEMU / changed clusters, MiB`, read, changed, BYTES_LIMIT),
    compare('  written by QEMU / changed clusters, MiB', written, changed, BYTES_LIMIT),
    compare('  in the repository / changed clusters, MiB', stored, changed, BYTES_LIMIT),
  ];
}

/** A qcow2 whose every cluster holds other random bytes. */
export async function fillDisk(file: string): Promise<void> {
  const raw = `${file}.raw`;
  await fillFile(raw, DISK_MEGABYTES);
  await execa('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, file]);
  await rm(raw);
  await syncPath(file);
}

/** A file of random bytes, which must not be there. */
export async function fillFile(file: string, megabytes: number): Promise<void> {
  const handle = await open(file, 'wx');
  try {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    for (let at = 0; at < megabytes * MEBIBYTE; at += CHUNK_BYTES) await handle.write(randomFillSync(chunk));
  } finally {
    await handle.close();
  }
}

async function convertDisk(image: string, file: string): Promise<void> {
  // The VM has it open, and writes nothing.
  await execa('qemu-img', ['convert', '-U', '-f', 'qcow2', '-O', 'qcow2', image, file]);
  await syncPath(file);
}

/** Of this file alone: others measure on this machine, too. */
export async function dropCache(file: string): Promise<void> {
  await syncPath(file);
  await execa('dd', [`if=${file}`, 'iflag=nocache', 'count=0']);
}

/** What the process has read and written since its start, from whatever file. */
async function bytesOf(pid: number): Promise<{ readonly read: number; readonly written: number }> {
  const text = await readFile(`/proc/${pid}/io`, 'utf8');
  const of = (name: string): number => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1] ?? NaN);
  return { read: of('rchar'), written: of('wchar') };
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}
