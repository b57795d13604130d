// guest-get-fsinfo: filesystems with their disks' addresses, from which the host knows which of its disks a mount lies
// on (libvirt by PCI address, bus, target and unit; our host tool by serial first). Mounts and disks: src/linux/.
import { statfs } from 'node:fs/promises';
import { defined } from '../../defined.js';
import type { Disk, DiskChain } from '../../linux/disks.js';
import type { Filesystem, MountTable } from '../../linux/mounts.js';
import { pathBytes } from '../../linux/path-text.js';
import type { Returns } from '../../qga/commands.js';
import type { Compat } from '../../qga/server.js';
import type { Sources } from '../kernel-files.js';
import { isPartitionOf, leavesUnder } from '../../linux/block-tree.js';
import { family } from './types.js';
import { Looks, threeAtATime } from './looks.js';

type FsInfo = Returns<'guest-get-fsinfo'>[number];
type Sizes = Pick<FsInfo, 'used-bytes' | 'total-bytes' | 'total-bytes-privileged'>;

/** A filesystem behind a process or a dead disk may not answer. Its sizes are then left out. */
const STAT_LIMIT_MS = 2000;

export function filesystemHandlers({ compat, sysRoot, view }: Pick<Sources, 'compat' | 'sysRoot' | 'view'>) {
  const looks = new Looks(STAT_LIMIT_MS);
  const sizes = async (mountpoint: string): Promise<Sizes> => {
    try {
      const stat = await looks.at(mountpoint, async () => await statfs(pathBytes(mountpoint), { bigint: true }));
      const used = stat.blocks - stat.bfree;
      return {
        'used-bytes': used * stat.bsize,
        // As much as a user who is not root could fill.
        'total-bytes': (used + stat.bavail) * stat.bsize,
        ...(compat === '7.2' ? {} : { 'total-bytes-privileged': stat.blocks * stat.bsize }),
      };
    } catch {
      // QEMU's schema: optional members, absent where they cannot be had.
      return {};
    }
  };
  return family({
    async 'guest-get-fsinfo'() {
      const { table, lookup } = await view('own');
      const disks = new Map<Filesystem, FsInfo['disk']>();
      const disksOf = (filesystem: Filesystem, chain: DiskChain): FsInfo['disk'] => {
        const known = disks.get(filesystem);
        if (known !== undefined) return known;
        const found = chain.disks.map((disk) => diskMember(disk, leafOn(chain, disk, sysRoot)));
        disks.set(filesystem, found);
        return found;
      };
      // Newest first, as qemu-ga lists them.
      const entries = listed(table, compat).toReversed();
      return await threeAtATime(entries, async ({ filesystem, mountpoint, opens }): Promise<FsInfo> => {
        const chain = lookup.chainOf(filesystem);
        return {
          name: chain.devices[0] ?? filesystem.source,
          mountpoint,
          type: filesystem.type,
          ...(opens ? await sizes(mountpoint) : {}),
          disk: disksOf(filesystem, chain),
        };
      });
    },
  });
}

interface ListedMount {
  readonly filesystem: Filesystem;
  readonly mountpoint: string;
  /** The path leads to it, and through no mount that may not answer. */
  readonly opens: boolean;
}

/** The mounts that are listed, oldest first: up to 9.x qemu-ga lists each mount, from 10.0 each device once. */
export function listed({ filesystems, filesystemOfMount, mounts }: MountTable, compat: Compat): readonly ListedMount[] {
  if (compat !== '7.2')
    return filesystems.map((filesystem) => {
      const { mountpoint, reachable } = filesystem;
      return { filesystem, mountpoint, opens: reachable.length > 0 };
    });
  const reachable = new Set(filesystems.flatMap((filesystem) => filesystem.reachable));
  return mounts.flatMap((mount) => {
    const filesystem = filesystemOfMount(mount);
    return filesystem === undefined ? [] : [{ filesystem, mountpoint: mount.mountpoint, opens: reachable.has(mount) }];
  });
}

/** The device that qemu-ga names: the partition under a volume, where there is one, and not its disk. */
function leafOn({ devices }: DiskChain, disk: Disk, sysRoot: string): string {
  const leaves = devices.flatMap((device) => leavesUnder(sysRoot, device));
  const leaf =
    leaves.find((name) => name === disk.name) ?? leaves.find((name) => isPartitionOf(sysRoot, name, disk.name));
  return leaf === undefined ? disk.dev : `/dev/${leaf.replaceAll('!', '/')}`;
}

function diskMember(disk: Disk, dev: string): FsInfo['disk'][number] {
  const { address } = disk;
  const { ccw } = address;
  const serial = disk.udevSerial ?? disk.serial;
  return {
    'pci-controller': address.pci,
    'bus-type': address.busType,
    bus: address.bus,
    target: address.target,
    unit: address.unit,
    ...defined({ serial }),
    dev,
    ...defined({ 'ccw-address': ccw }),
  };
}
