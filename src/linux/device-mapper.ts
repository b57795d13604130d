// Tells which device-mapper device a block device is, by sysfs alone (Documentation/ABI/testing/sysfs-block-dm), and
// what LVM means by its name. Starts nothing.
import { join } from 'node:path';
import { namesIn, readValue } from './kernel-values.js';

export interface MappedDevice {
  /** As below /dev/mapper. */
  readonly name: string;
  /** `LVM-` and two ids of 32 characters for a logical volume; empty where who made it gave none. */
  readonly uuid: string;
}

/** Undefined if the device, `MAJOR:MINOR`, is none of device-mapper's. Never throws. */
export function mappedDevice(sysRoot: string, device: string): MappedDevice | undefined {
  const folder = join(sysRoot, 'dev/block', device, 'dm');
  const name = readValue(join(folder, 'name'));
  return name === undefined ? undefined : { name, uuid: readValue(join(folder, 'uuid')) ?? '' };
}

/** It is a logical volume that may be mounted: LVM's own inner devices have a suffix (`-real`, `-cow`, `-tpool`). */
export function isLogicalVolume({ uuid }: MappedDevice): boolean {
  return /^LVM-[A-Za-z0-9]{64}$/.test(uuid);
}

/** Some device of device-mapper is suspended: what is written to it waits. Never throws. */
export function anySuspended(sysRoot: string): boolean {
  const folder = join(sysRoot, 'block');
  return namesIn(folder).some((name) => readValue(join(folder, name, 'dm/suspended')) === '1');
}

/** The name that LVM gives to the device of a logical volume: a hyphen within a part is written twice. */
export function mapperName(group: string, volume: string): string {
  return [group, volume].map((part) => part.replaceAll('-', '--')).join('-');
}
