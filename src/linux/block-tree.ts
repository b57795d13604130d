// Tells of block devices by their names and folders in sysfs alone, and what lies on what. The disks
// under a filesystem: disks.ts. Where a disk is plugged in: disk-address.ts.
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { linkTarget, namesIn, readValue, realPath } from './kernel-values.js';

/** Names in a folder as people count them: vda2 before vda10. */
export function countedNames(folder: string): readonly string[] {
  return namesIn(folder).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

/** The node of a kernel name, which has `!` for each slash (`cciss!c0d0`). */
export function nodeNamed(kernelName: string): string {
  return `/dev/${kernelName.replaceAll('!', '/')}`;
}

/** The kernel name of what has this name below /dev. */
export function kernelName(name: string): string {
  return name.replaceAll('/', '!');
}

/** Name of the driver bound to a device's folder. */
export function driverOf(path: string): string | undefined {
  const target = linkTarget(join(path, 'driver'));
  return target === undefined ? undefined : basename(target);
}

/** Node of a device's folder, as udev names it. */
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
  const slaves = countedNames(join(path, 'slaves'));
  return slaves.length > 0 ? slaves.flatMap((slave) => leavesUnder(sysRoot, slave, depth + 1)) : [name];
}

export function isPartitionOf(sysRoot: string, name: string, disk: string): boolean {
  const path = realPath(join(sysRoot, 'class/block', name));
  return path !== undefined && existsSync(join(path, 'partition')) && basename(join(path, '..')) === disk;
}
