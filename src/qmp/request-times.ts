// How long a guest's requests to its disks take, as QEMU counts them at the devices: with whatever a job makes them wait for.
// Specification: QEMU qapi/block-core.json (BlockDeviceStats).
import { runQmp } from './commands.js';
import type { Monitor } from './monitor.js';

interface RequestTime {
  readonly count: number;
  /** Of all of them together. */
  readonly ns: number;
}

export const requestKinds = ['read', 'write', 'flush'] as const;
export type RequestKind = (typeof requestKinds)[number];
/** Of all disks of the guest since QEMU was started. */
export type RequestTimes = Readonly<Record<RequestKind, RequestTime>>;

/** Throws what the monitor throws. */
export async function readRequestTimes(monitor: Monitor): Promise<RequestTimes> {
  const all = await runQmp(monitor, 'query-blockstats', {});
  const stats = all.filter(({ qdev }) => qdev !== undefined && qdev !== '').map((device) => device.stats);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  return {
    read: {
      count: sum(stats.map((of) => of.rd_operations)),
      ns: sum(stats.map((of) => of.rd_total_time_ns)),
    },
    write: {
      count: sum(stats.map((of) => of.wr_operations)),
      ns: sum(stats.map((of) => of.wr_total_time_ns)),
    },
    flush: {
      count: sum(stats.map((of) => of.flush_operations)),
      ns: sum(stats.map((of) => of.flush_total_time_ns)),
    },
  };
}
