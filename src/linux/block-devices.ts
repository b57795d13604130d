// Looks up block devices in sysfs and in udev's database: by number and by name, what kind of device a chain ends at,
// and how a whole disk is named so that the host can match it. Reads only; never opens a block device. Chains:
// disks.ts.
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import { defined } from '../defined.js';
import type { DiskRef } from '../consistency.js';
import { nodeNamed } from './block-tree.js';
import { diskAddress, type DiskAddress } from './disk-address.js';
import { namesIn, readValue, realPath } from './kernel-values.js';
import { isKnownOutside } from './outside-address.js';
import type { Work } from './turns.js';

/** A whole disk of this machine. */
export interface Disk extends DiskRef {
  /** Kernel name, `vda`. */
  readonly name: string;
  readonly dev: string;
  readonly address: DiskAddress;
  /** udev's ID_SERIAL, which stock qemu-ga sends: for SCSI it has vendor and model before the serial. */
  readonly udevSerial?: string;
  /** The kernel counts what is written to it (queue/iostats). */
  readonly countsWrites: boolean;
}

/** What a device without slaves is; only a disk may freeze side by side with others. */
export type EndKind = 'disk' | 'memory' | 'network' | 'unknown';

export class BlockDevices {
  readonly #sys: string;
  readonly #udev: string;
  readonly #proc: string;
  #btrfsMembers: ReadonlyMap<string, readonly string[]> | undefined;

  constructor(sysRoot: string, udevRoot: string, procRoot: string) {
    this.#sys = realpathSync.native(sysRoot);
    this.#udev = udevRoot;
    this.#proc = procRoot;
  }

  /** Sysfs folder of the device with this `MAJOR:MINOR`. */
  byNumber(device: string): string | undefined {
    return realPath(join(this.#sys, 'dev/block', device));
  }

  /** Sysfs folder of the device that a path in /dev names; one of device-mapper by its name there, too. */
  byName(path: string): string | undefined {
    const direct = this.#byKernelName(basename(path));
    if (direct !== undefined) return direct;
    const linked = realPath(path);
    if (linked !== undefined && linked !== path) return this.#byKernelName(basename(linked));
    // /dev/mapper/NAME is a link or a node of its own; device-mapper keeps its name in dm/name.
    const name = basename(path);
    return namesIn(join(this.#sys, 'class/block'))
      .filter((entry) => entry.startsWith('dm-'))
      .map((entry) => this.#byKernelName(entry))
      .find((device) => device !== undefined && readValue(join(device, 'dm/name')) === name);
  }

  /** As `byName`, for what need not be a path in /dev: one device or none. */
  named(path: string): string[] {
    const device = path.startsWith('/dev/') ? this.byName(path) : undefined;
    return device === undefined ? [] : [device];
  }

  #byKernelName(name: string): string | undefined {
    return realPath(join(this.#sys, 'class/block', name));
  }

  /** All devices of the btrfs that `member` is one of; `member` alone where sysfs does not list them. */
  btrfsDevices(member: string): string[] {
    this.#btrfsMembers ??= this.#readBtrfsMembers();
    const members = this.#btrfsMembers.get(basename(member));
    if (members === undefined) return [member];
    return members.flatMap((entry) => this.#byKernelName(entry) ?? []);
  }

  // For each device, all that its filesystem lies on.
  #readBtrfsMembers(): ReadonlyMap<string, readonly string[]> {
    const folder = join(this.#sys, 'fs/btrfs');
    const filesystems = namesIn(folder).map((fsid) => namesIn(join(folder, fsid, 'devices')));
    return new Map(filesystems.flatMap((members) => members.map((name): [string, string[]] => [name, members])));
  }

  /** The kind of a device without slaves. */
  endKind(device: string): EndKind {
    const path = device.slice(this.#sys.length);
    const name = basename(device);
    if (/^(zram|ram)\d+$/.test(name) || path.startsWith('/devices/pseudo_')) return 'memory';
    // Their blocks may be a file of this machine: who serves them, and from what, the kernel does not say.
    if (/^(nbd|ublkb|drbd)\d+$/.test(name) || path.includes('/tcm_loop_')) return 'unknown';
    const session = /\/session(\d+)\//.exec(path)?.[1];
    if (session !== undefined) return this.#isOutside(session) ? 'network' : 'unknown';
    if (/^rbd\d+$/.test(name)) return 'network';
    if (path.startsWith('/devices/virtual/nvme-')) return this.#nvmeKind(device);
    if (path.startsWith('/devices/virtual/') || !path.startsWith('/devices/')) return 'unknown';
    return 'disk';
  }

  // An iSCSI target may be served by this machine itself: by a pod of a storage engine, or a service address that leads
  // to one. Then what is written to it ends on a disk of this machine.
  #isOutside(session: string): boolean {
    const connection = join(this.#sys, 'class/iscsi_connection', `connection${session}:0`);
    const address = readValue(join(connection, 'address')) ?? readValue(join(connection, 'persistent_address'));
    return address !== undefined && isKnownOutside(address, { sysRoot: this.#sys, procRoot: this.#proc });
  }

  // With multipath the block device hangs on its subsystem, and the controllers are links beside it.
  #nvmeKind(device: string): EndKind {
    const subsystem = join(device, '..');
    const transports = controllersOf(subsystem).map((entry) => readValue(join(subsystem, entry, 'transport')));
    if (transports.length > 0 && transports.every((transport) => transport === 'pcie')) return 'disk';
    return transports.includes('loop') ? 'unknown' : 'network';
  }

  disk(device: string): Disk {
    const name = basename(device);
    const number = readValue(join(device, 'dev'));
    const serial = serialOf(device);
    const udevSerial = number === undefined ? undefined : this.#udevSerial(number);
    const address = diskAddress(addressPath(device));
    return {
      name,
      dev: nodeNamed(name),
      address,
      countsWrites: readValue(join(device, 'queue/iostats')) === '1',
      ...defined({ serial, pciAddress: address.pciAddress, udevSerial }),
    };
  }

  #udevSerial(number: string): string | undefined {
    return /^E:ID_SERIAL=(.+)$/m.exec(readValue(join(this.#udev, 'data', `b${number}`)) ?? '')?.[1];
  }

  /** All whole disks; of thousands, in turns. */
  *allDisks(): Work<readonly Disk[]> {
    const disks: Disk[] = [];
    for (const entry of namesIn(join(this.#sys, 'block'))) {
      yield;
      const device = realPath(join(this.#sys, 'block', entry));
      if (device === undefined || this.endKind(device) !== 'disk' || existsSync(join(device, 'loop'))) continue;
      if (namesIn(join(device, 'slaves')).length === 0) disks.push(this.disk(device));
    }
    return disks;
  }
}

function controllersOf(subsystem: string): readonly string[] {
  return namesIn(subsystem).filter((entry) => /^nvme\d+$/.test(entry));
}

function addressPath(device: string): string {
  if (!device.includes('/virtual/nvme-')) return device;
  const subsystem = join(device, '..');
  const [controller] = controllersOf(subsystem);
  return (controller === undefined ? undefined : realPath(join(subsystem, controller))) ?? device;
}

// virtio-blk has `serial` on the disk, NVMe on its controller (in a multipath setup: on the subsystem), SCSI and
// ATA in the vital product data page 0x80.
function serialOf(device: string): string | undefined {
  for (const path of ['serial', 'device/serial', '../serial']) {
    const text = readValue(join(device, path))?.trim();
    if (text !== undefined && text !== '') return text;
  }
  try {
    const page = readFileSync(join(device, 'device/vpd_pg80'));
    const text = page
      .subarray(4, 4 + page.readUInt16BE(2))
      .toString('latin1')
      .replaceAll('\0', '')
      .trim();
    return text === '' ? undefined : text;
  } catch {
    return undefined;
  }
}
