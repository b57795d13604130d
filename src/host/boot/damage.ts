// What Linux says where a filesystem or a disk is damaged, or it cannot go on.
import { clipped } from './clipped.js';

const DAMAGE =
  /Kernel panic|EXT4-fs error|JBD2: .*(?:error|corrupt)|XFS \([^)]*\):.*corrupt|BTRFS (?:error|critical)|I\/O error(?:,| on) dev (?:vd|sd|hd|xvd|nvme\d|dm-|md)/i;

/** The first line of a kernel's log that tells of damage; undefined if none does. Drives without a medium do not count. */
export function damageIn(log: string): string | undefined {
  const line = log.split(/\r?\n/).find((each) => DAMAGE.test(each));
  return line === undefined ? undefined : clipped(line);
}

/**
 * Whether such a line is the doing of the machine that the guest was given: the ticks of its timer did not come in time, for
 * instance since this host had too much to do. It is said before any disk is read.
 */
export function isOfMachine(damage: string): boolean {
  return /Kernel panic - not syncing: (?:IO-APIC|.*timer doesn't work)/.test(damage);
}
