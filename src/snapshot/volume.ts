// What is cut: one filesystem, with the block devices under it and the places at which it is mounted. Pure.
import type { DiskChain } from '../linux/disks.js';
import type { Filesystem } from '../linux/mounts.js';

export interface Volume {
  readonly filesystem: Filesystem;
  /** Where it is mounted, as the agent is told. */
  readonly mountpoint: string;
  readonly type: string;
  /** `MAJOR:MINOR`. */
  readonly device: string;
  /** Node as mountinfo has it. */
  readonly source: string;
  readonly readOnly: boolean;
  /** Why no block device alone holds all of it, if that is so: a journal or log elsewhere, several devices. */
  readonly split?: string;
}

export function volumeOf(filesystem: Filesystem, chain: DiskChain): Volume {
  const { mountpoint, type, device, source, readOnly } = filesystem;
  const split = whySplit(filesystem, chain);
  return { filesystem, mountpoint, type, device, source, readOnly, ...(split === undefined ? {} : { split }) };
}

function whySplit({ mounts }: Filesystem, { devices, lacksJournal }: DiskChain): string | undefined {
  const options = mounts[0]?.superOptions ?? [];
  const elsewhere = options.find((option) => /^(logdev|rtdev)=/.test(option));
  if (elsewhere !== undefined) return `it has a part on another device (${elsewhere})`;
  if (lacksJournal === true) return 'it has its journal on another device, and which one cannot be told';
  return devices.length > 1 ? `it lies on ${devices.join(' and ')}, which no snapshot of one holds` : undefined;
}
