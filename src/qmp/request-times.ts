// How long a guest's requests to its disks take, as QEMU counts them at the devices: with whatever a job makes them wait for.
// Specification: QEMU qapi/block-core.json (BlockDeviceStats).
import { runQmp } from './commands.js';
import type { Monitor } from './monitor.js';

interface RequestTime {
  readonly count: number;
  /** Of all of them together. */
  readonly ns: number;
}

/** By device and kind (`/machine/peripheral/data write`): on another disk, and of another kind, they take another time. */
export type RequestTimes = ReadonlyMap<string, RequestTime>;

/** Of each disk of the guest since QEMU was started. Throws what the monitor throws. */
export async function readRequestTimes(monitor: Monitor): Promise<RequestTimes> {
  const times = new Map<string, RequestTime>();
  for (const { qdev, stats } of await runQmp(monitor, 'query-blockstats', {})) {
    if (qdev === undefined || qdev === '') continue;
    times.set(`${qdev} read`, { count: stats.rd_operations, ns: stats.rd_total_time_ns });
    times.set(`${qdev} write`, { count: stats.wr_operations, ns: stats.wr_total_time_ns });
    times.set(`${qdev} flush`, { count: stats.flush_operations, ns: stats.flush_total_time_ns });
  }
  return times;
}

/** What came since; a device that was not there before, or counts anew, has made none. */
export function requestsSince(before: RequestTimes, now: RequestTimes): RequestTimes {
  const since = new Map<string, RequestTime>();
  for (const [key, { count, ns }] of now) {
    const then = before.get(key);
    if (then !== undefined && count > then.count && ns >= then.ns)
      since.set(key, { count: count - then.count, ns: ns - then.ns });
  }
  return since;
}
