// Which disks a filesystem lies on. Follows sysfs from the block device under a superblock through partitions,
// device-mapper, md, bcache and loop files down to whole disks, and names each disk as the host can match it: serial,
// PCI address, and the bus, target and unit that guest-get-fsinfo speaks of (QEMU qga/commands-linux.c).
// Reads sysfs and udev's database only; never opens a block device. Roots are settable for tests.
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { DiskRef } from '../consistency.js';
import { diskAddress, type DiskAddress } from './disk-address.js';
import type { Filesystem, MountTable } from './mounts.js';

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

/** Everything under one filesystem. */
export interface DiskChain {
  /** Kernel names of the block devices the superblock lies on (`vda1`, `dm-0`); several for btrfs. */
  readonly devices: readonly string[];
  /** The whole disks at the end, each once. */
  readonly disks: readonly Disk[];
  /** Every end is a physical or virtual disk of this machine, and no file lies between: it may freeze side by side. */
  readonly direct: boolean;
  /** Every end is understood; if not, the filesystem may lie on any disk. */
  readonly understood: boolean;
  /** Files behind loop devices on the way, outermost first. */
  readonly files: readonly string[];
  /** Filesystems that must freeze after this one, because its blocks are files on them. */
  readonly restsOn: readonly Filesystem[];
}

export interface DiskLookup {
  chainOf(filesystem: Filesystem): DiskChain;
  /** All whole disks of this machine that end chains: no loop, device-mapper, md, zram and the like. */
  disks(): readonly Disk[];
}

interface Roots {
  readonly sysRoot?: string;
  readonly udevRoot?: string;
}

/** Looks at the disks as they are now. The table is needed to find what lies under a loop file. */
export function createDiskLookup(
  table: MountTable,
  { sysRoot = '/sys', udevRoot = '/run/udev' }: Roots = {},
): DiskLookup {
  const sys = new Sysfs(sysRoot, udevRoot);
  const chains = new Map<Filesystem, DiskChain>();
  let all: readonly Disk[] | undefined;

  const chainOf = (filesystem: Filesystem, below: readonly Filesystem[] = []): DiskChain => {
    const known = chains.get(filesystem);
    if (known !== undefined) return known;
    const walk: Walk = { disks: new Map(), files: [], restsOn: new Set(), direct: true, understood: true };
    const devices = devicesUnder(filesystem, sys);
    if (devices.length === 0) walk.direct = walk.understood = false;
    const path = [...below, filesystem];
    for (const device of devices) descend(device, walk, path, new Set());
    const chain: DiskChain = {
      devices: devices.map((device) => basename(device)),
      disks: [...walk.disks.values()],
      direct: walk.direct,
      understood: walk.understood,
      files: walk.files,
      restsOn: [...walk.restsOn],
    };
    chains.set(filesystem, chain);
    return chain;
  };

  const descend = (device: string, walk: Walk, path: readonly Filesystem[], seen: Set<string>): void => {
    if (seen.has(device)) return;
    seen.add(device);
    const slaves = sys.list(join(device, 'slaves'));
    if (sys.has(join(device, 'partition'))) descend(join(device, '..'), walk, path, seen);
    else if (slaves.length > 0) {
      for (const slave of slaves) descend(sys.real(join(device, 'slaves', slave)) ?? '', walk, path, seen);
    } else if (sys.has(join(device, 'loop'))) descendFile(device, walk, path);
    else {
      const kind = sys.endKind(device);
      if (kind === 'disk') {
        const disk = sys.disk(device);
        walk.disks.set(disk.name, disk);
      } else walk.direct = false;
      if (kind === 'unknown') walk.understood = false;
    }
  };

  const descendFile = (device: string, walk: Walk, path: readonly Filesystem[]): void => {
    walk.direct = false;
    const file = sys.read(join(device, 'loop', 'backing_file'));
    // The kernel appends this to the name of a file that was deleted while in use; the loop device lives on.
    const under = file === undefined ? undefined : table.filesystemOf(file.replace(/ \(deleted\)$/, ''));
    if (file !== undefined) walk.files.push(file);
    if (under === undefined) {
      const mount = file === undefined ? undefined : table.resolve(file);
      // A file on tmpfs lies on no disk; one on NFS on none of ours.
      if (mount?.type !== 'tmpfs' && mount?.type !== 'ramfs') walk.understood = false;
      return;
    }
    if (path.includes(under)) {
      walk.understood = false;
      return;
    }
    walk.restsOn.add(under);
    const chain = chainOf(under, path);
    for (const disk of chain.disks) walk.disks.set(disk.name, disk);
    for (const next of chain.restsOn) walk.restsOn.add(next);
    walk.files.push(...chain.files);
    walk.understood &&= chain.understood;
  };

  return { chainOf: (filesystem) => chainOf(filesystem), disks: () => (all ??= sys.allDisks()) };
}

interface Walk {
  readonly disks: Map<string, Disk>;
  readonly files: string[];
  readonly restsOn: Set<Filesystem>;
  direct: boolean;
  understood: boolean;
}

/** Sysfs directories of the block devices under a superblock. */
function devicesUnder(filesystem: Filesystem, sys: Sysfs): string[] {
  const named = (source: string): string[] => {
    const device = source.startsWith('/dev/') ? sys.byName(source) : undefined;
    return device === undefined ? [] : [device];
  };
  if (filesystem.device.startsWith('0:')) {
    if (filesystem.type !== 'btrfs') return named(filesystem.source);
    const [device] = named(filesystem.source);
    return device === undefined ? [] : sys.btrfsDevices(device);
  }
  const device = sys.byNumber(filesystem.device);
  // XFS may keep its log and its real-time data on devices of their own.
  const extra = (filesystem.mounts[0]?.superOptions ?? []).flatMap((option) => {
    const path = /^(?:logdev|rtdev)=(.+)$/.exec(option)?.[1];
    return path === undefined ? [] : named(path);
  });
  return device === undefined ? [] : [device, ...extra];
}

type EndKind = 'disk' | 'memory' | 'network' | 'unknown';

class Sysfs {
  readonly #sys: string;
  readonly #udev: string;

  constructor(sysRoot: string, udevRoot: string) {
    this.#sys = realpathSync.native(sysRoot);
    this.#udev = udevRoot;
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

  btrfsDevices(member: string): string[] {
    const name = basename(member);
    for (const fsid of this.list(join(this.#sys, 'fs/btrfs'))) {
      const members = this.list(join(this.#sys, 'fs/btrfs', fsid, 'devices'));
      if (members.includes(name))
        return members.flatMap((entry) => this.real(join(this.#sys, 'class/block', entry)) ?? []);
    }
    return [member];
  }

  /** What a device without slaves is. */
  endKind(device: string): EndKind {
    const path = device.slice(this.#sys.length);
    const name = basename(device);
    if (/^(zram|ram)\d+$/.test(name)) return 'memory';
    if (/\/session\d+\//.test(path) || /^(nbd|rbd|drbd|ublkb)\d+$/.test(name)) return 'network';
    if (path.startsWith('/devices/virtual/nvme-')) return this.#nvmeOverPci(device) ? 'disk' : 'network';
    if (path.startsWith('/devices/virtual/') || !path.startsWith('/devices/')) return 'unknown';
    return 'disk';
  }

  // With multipath the block device hangs on its subsystem, and the controllers are links beside it.
  #nvmeOverPci(device: string): boolean {
    const subsystem = join(device, '..');
    const controllers = this.list(subsystem).filter((entry) => /^nvme\d+$/.test(entry));
    return (
      controllers.length > 0 && controllers.every((entry) => this.read(join(subsystem, entry, 'transport')) === 'pcie')
    );
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
      ...(serial === undefined ? {} : { serial }),
      ...(address.pciAddress === undefined ? {} : { pciAddress: address.pciAddress }),
      ...(udevSerial === undefined ? {} : { udevSerial }),
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

  allDisks(): readonly Disk[] {
    return this.list(join(this.#sys, 'block'))
      .flatMap((entry) => this.real(join(this.#sys, 'block', entry)) ?? [])
      .filter((device) => this.endKind(device) === 'disk' && !this.has(join(device, 'loop')))
      .filter((device) => this.list(join(device, 'slaves')).length === 0)
      .map((device) => this.disk(device));
  }
}
