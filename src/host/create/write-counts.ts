// Reads how many writes the guest has sent to each disk, as QEMU counts them at the device: the host's own evidence for
// a disk of which the guest says nothing.
import type { VmDisk } from '../../qmp/block-graph.js';
import type { Monitor } from '../../qmp/monitor.js';
import { runQmp } from '../../qmp/commands.js';

/** Counts by the path of the device; the values are to be compared, not read. */
export type WriteCounts = ReadonlyMap<string, string>;

export async function readWriteCounts(client: Monitor): Promise<WriteCounts> {
  const counts = new Map<string, string>();
  for (const { qdev, stats } of await runQmp(client, 'query-blockstats', {})) {
    const count = `${stats.wr_operations} writes, ${stats.wr_bytes} bytes, ${stats.unmap_operations} discards`;
    if (qdev !== undefined && qdev !== '')
      counts.set(qdev.startsWith('/') ? qdev : `/machine/peripheral/${qdev}`, count);
  }
  return counts;
}

/** Per disk: true if nothing was written between the two counts, undefined if QEMU did not count one of them. */
export function stillDisks(
  disks: readonly VmDisk[],
  before: WriteCounts,
  after: WriteCounts | undefined,
): (boolean | undefined)[] {
  return disks.map(({ qdev }) => {
    const from = qdev === undefined ? undefined : before.get(qdev);
    const to = qdev === undefined ? undefined : after?.get(qdev);
    return from === undefined || to === undefined ? undefined : from === to;
  });
}
