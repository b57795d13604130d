// Block devices as sysfs shows them under their kernel names: what lies on what. Addresses: src/linux/disk-address.ts.
import { existsSync, readFileSync, readdirSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';

/** Entries of a folder, sorted; none if there is none. */
export function entries(folder: string): readonly string[] {
  try {
    return readdirSync(folder).sort(byNumber);
  } catch {
    return [];
  }
}

/** Without the newline; undefined if it cannot be read. */
export function readValue(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

export function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** Name of the driver bound to a device's directory. */
export function driverOf(path: string): string | undefined {
  try {
    return basename(readlinkSync(join(path, 'driver')));
  } catch {
    return undefined;
  }
}

/** Node of a device's directory, as udev names it. */
export function nodeOf(path: string): string | undefined {
  const name = /^DEVNAME=(.+)$/m.exec(readValue(join(path, 'uevent')) ?? '')?.[1];
  return name === undefined ? undefined : `/dev/${name}`;
}

/** Put together by the kernel, and itself no disk: device-mapper, md, loop and the like. */
export function isVirtual(path: string): boolean {
  return path.includes('/devices/virtual/block/');
}

/** The partitions or whole disks at the bottom of a device. */
export function leavesUnder(sysRoot: string, name: string, depth = 0): readonly string[] {
  const path = realPath(join(sysRoot, 'class/block', name));
  // Deeper than any stack of volumes that a kernel puts together.
  if (path === undefined || depth > 32) return [];
  const slaves = entries(join(path, 'slaves'));
  return slaves.length > 0 ? slaves.flatMap((slave) => leavesUnder(sysRoot, slave, depth + 1)) : [name];
}

export function isPartitionOf(sysRoot: string, name: string, disk: string): boolean {
  const path = realPath(join(sysRoot, 'class/block', name));
  return path !== undefined && existsSync(join(path, 'partition')) && basename(join(path, '..')) === disk;
}

/** vda2 before vda10. */
function byNumber(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}
