// guest-get-diskstats, -cpustats, -load: the kernel's counters from /proc (proc(5)), as qemu-ga names them.
import { join } from 'node:path';
import type { Returns } from '../../qga/commands.js';
import { readKernelFile, type Sources } from '../kernel-files.js';
import { family } from './types.js';

/** The kernel's USER_HZ, on every architecture Node runs on. */
const TICKS_PER_SECOND = 100n;

type DiskStats = Returns<'guest-get-diskstats'>[number]['stats'];
type CpuStats = Returns<'guest-get-cpustats'>[number];

/** Columns of /proc/diskstats after the name; kernels before 4.18 and 5.5 have fewer. */
const diskColumns: readonly (keyof DiskStats)[] = [
  ...(['read-ios', 'read-merges', 'read-sectors', 'read-ticks'] as const),
  ...(['write-ios', 'write-merges', 'write-sectors', 'write-ticks'] as const),
  ...(['ios-pgr', 'total-ticks', 'weight-ticks'] as const),
  ...(['discard-ios', 'discard-merges', 'discard-sectors', 'discard-ticks'] as const),
  ...(['flush-ios', 'flush-ticks'] as const),
];
/** Columns of a partition, before 2.6.25. */
const oldPartitionColumns: readonly (keyof DiskStats)[] = ['read-ios', 'read-sectors', 'write-ios', 'write-sectors'];

export function statisticsHandlers({ procRoot }: Sources) {
  return family({
    'guest-get-diskstats': () => lines(join(procRoot, 'diskstats')).flatMap(diskStats),
    'guest-get-cpustats': () => lines(join(procRoot, 'stat')).flatMap(cpuStats),
    'guest-get-load'() {
      const [load1m = 0, load5m = 0, load15m = 0] = readKernelFile(join(procRoot, 'loadavg')).split(' ', 3).map(Number);
      return { load1m, load5m, load15m };
    },
  });
}

const lines = (path: string): readonly (readonly string[])[] =>
  readKernelFile(path)
    .split('\n')
    .map((line) => line.trim().split(/\s+/));

function diskStats([major = '', minor = '', name = '', ...counts]: readonly string[]): Returns<'guest-get-diskstats'> {
  if (counts.length < 4) return [];
  const columns = counts.length === 4 ? oldPartitionColumns : diskColumns;
  const stats: DiskStats = {};
  for (const [index, column] of columns.entries()) {
    const count = counts[index];
    if (count !== undefined) stats[column] = BigInt(count);
  }
  return [{ name, major: Number(major), minor: Number(minor), stats }];
}

function cpuStats([name = '', ...counts]: readonly string[]): readonly CpuStats[] {
  const [, number] = /^cpu(\d+)$/.exec(name) ?? [];
  if (number === undefined) return [];
  const ms = counts.map((count) => (BigInt(count) * 1000n) / TICKS_PER_SECOND);
  const [user = 0n, nice = 0n, system = 0n, idle = 0n, iowait, irq, softirq, steal, guest, guestnice] = ms;
  return [
    { type: 'linux', cpu: Number(number), user, nice, system, idle, iowait, irq, softirq, steal, guest, guestnice },
  ];
}
