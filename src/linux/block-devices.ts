// Block devices as sysfs and udev's database tell of them: by number and by name, what lies at the end of a chain, and
// how a whole disk is named so that the host can match it. Reads only; never opens a block device. Chains: disks.ts.
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import { defined } from '../defined.js';
import type { DiskRef } from '../consistency.js';
import { diskAddress, type DiskAddress } from './disk-address.js';
import { isKnownOutside } from './outside-address.js';
import { pathText } from './path-text.js';
import type { Work } from './turns.js';

/** A whole disk of this machine. */
export interface Disk extends DiskRef {
  /** Kernel name, `vda`. */
  readonly name: string;
  readonly dev: string;
  readonly address: DiskAddress;
  /** udev's ID_SERIAL, which stock qemu-ga sends: for SCSI it has vendor and model before the serial. */
  readonly udevSerial?: string;
  /** udev's or sysfs' idea of whether counting I/O is on (queue/iostats). */
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

  /** A path that a file of sysfs holds, whose bytes need not be text. */
  readPath(path: string): string | undefined {
    try {
      const text = pathText(readFileSync(path)).replace(/\n$/, '');
      return text === '' ? undefined : text;
    } catch {
      return undefined;
    }
  }

  read(path: string): string | undefined {
    try {
      const text = readFileSync(path, 'utf8').replace(/\n$/, '');
      return text === '' ? undefined : text;
    } catch {
      return undefined;
    }
  }

  has(path: string): boolean {
    return this.real(path) !== undefined;
  }

  list(path: string): string[] {
    try {
      return readdirSync(path).sort();
    } catch {
      return [];
    }
  }

  real(path: string): string | undefined {
    try {
      return realpathSync.native(path);
    } catch {
      return undefined;
    }
  }

  byNumber(device: string): string | undefined {
    return this.real(join(this.#sys, 'dev/block', device));
  }

  // /dev/mapper/NAME is a link or a node of its own; device-mapper keeps its name in dm/name.
  byName(path: string): string | undefined {
    const direct = this.real(join(this.#sys, 'class/block', basename(path).replaceAll('/', '!')));
    if (direct !== undefined) return direct;
    const linked = this.real(path);
    if (linked !== undefined && linked !== path) return this.real(join(this.#sys, 'class/block', basename(linked)));
    const name = basename(path);
    return this.list(join(this.#sys, 'class/block'))
      .filter((entry) => entry.startsWith('dm-'))
      .map((entry) => this.real(join(this.#sys, 'class/block', entry)))
      .find((device) => device !== undefined && this.read(join(device, 'dm/name')) === name);
  }

  /** Sysfs directory of the block device that a path in /dev names, if there is one. */
  named(path: string): string[] {
    const device = path.startsWith('/dev/') ? this.byName(path) : undefined;
    return device === undefined ? [] : [device];
  }

  btrfsDevices(member: string): string[] {
    this.#btrfsMembers ??= this.#readBtrfsMembers();
    const members = this.#btrfsMembers.get(basename(member));
    if (members === undefined) return [member];
    return members.flatMap((entry) => this.real(join(this.#sys, 'class/block', entry)) ?? []);
  }

  // Of each device, all that its filesystem lies on.
  #readBtrfsMembers(): ReadonlyMap<string, readonly string[]> {
    const folder = join(this.#sys, 'fs/btrfs');
    const filesystems = this.list(folder).map((fsid) => this.list(join(folder, fsid, 'devices')));
    return new Map(filesystems.flatMap((members) => members.map((name): [string, string[]] => [name, members])));
  }

  /** Of a device without slaves. */
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
    const address = this.read(join(connection, 'address')) ?? this.read(join(connection, 'persistent_address'));
    return address !== undefined && isKnownOutside(address, { sysRoot: this.#sys, procRoot: this.#proc });
  }

  // With multipath the block device hangs on its subsystem, and the controllers are links beside it.
  #nvmeKind(device: string): EndKind {
    const subsystem = join(device, '..');
    const transports = this.list(subsystem)
      .filter((entry) => /^nvme\d+$/.test(entry))
      .map((entry) => this.read(join(subsystem, entry, 'transport')));
    if (transports.length > 0 && transports.every((transport) => transport === 'pcie')) return 'disk';
    return transports.includes('loop') ? 'unknown' : 'network';
  }

  disk(device: string): Disk {
    const name = basename(device);
    const number = this.read(join(device, 'dev'));
    const serial = this.#serial(device);
    const udevSerial = number === undefined ? undefined : this.#udevSerial(number);
    const address = diskAddress(
      this.#addressPath(device),
      (path) => this.list(path),
      (path) => this.#driver(path),
    );
    return {
      name,
      dev: `/dev/${name.replaceAll('!', '/')}`,
      address,
      countsWrites: this.read(join(device, 'queue/iostats')) === '1',
      ...defined({ serial, pciAddress: address.pciAddress, udevSerial }),
    };
  }

  #addressPath(device: string): string {
    if (!device.includes('/virtual/nvme-')) return device;
    const subsystem = join(device, '..');
    const controller = this.list(subsystem).find((entry) => /^nvme\d+$/.test(entry));
    return (controller === undefined ? undefined : this.real(join(subsystem, controller))) ?? device;
  }

  // virtio-blk has `serial` on the disk, NVMe on its controller (in a multipath setup: on the subsystem), SCSI and
  // ATA in the vital product data page 0x80.
  #serial(device: string): string | undefined {
    for (const path of ['serial', 'device/serial', '../serial']) {
      const text = this.read(join(device, path))?.trim();
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

  #udevSerial(number: string): string | undefined {
    return /^E:ID_SERIAL=(.+)$/m.exec(this.read(join(this.#udev, 'data', `b${number}`)) ?? '')?.[1];
  }

  #driver(path: string): string | undefined {
    try {
      return basename(readlinkSync(join(path, 'driver')));
    } catch {
      return undefined;
    }
  }

  *allDisks(): Work<readonly Disk[]> {
    const disks: Disk[] = [];
    for (const entry of this.list(join(this.#sys, 'block'))) {
      yield;
      const device = this.real(join(this.#sys, 'block', entry));
      if (device === undefined || this.endKind(device) !== 'disk' || this.has(join(device, 'loop'))) continue;
      if (this.list(join(device, 'slaves')).length === 0) disks.push(this.disk(device));
    }
    return disks;
  }
}
