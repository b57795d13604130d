// guest-get-fsinfo: filesystems with their disks' addresses, from which the host knows which of its disks a mount lies
// on (libvirt by PCI address, bus, target and unit; our host tool by serial first). Mounts and disks: src/freeze/.
import { statfs } from 'node:fs/promises';
import { withLimit } from '../../deadline.js';
import type { Disk, DiskChain } from '../../freeze/disks.js';
import { machineViewer } from '../../freeze/machine-view.js';
import type { Filesystem, MountTable } from '../../freeze/mounts.js';
import { defaultOptions } from '../../freeze/options.js';
import type { Returns } from '../../qga/commands.js';
import type { Compat } from '../../qga/server.js';
import { isPartitionOf, leavesUnder } from './block-devices.js';
import type { Handlers } from './handlers.js';

type FsInfo = Returns<'guest-get-fsinfo'>[number];

/** Roots of the tables read, settable for tests. */
export interface FilesystemSources {
  readonly mountinfoPath?: string;
  readonly sysRoot?: string;
  readonly udevRoot?: string;
}

/** A filesystem behind a process or a dead disk may not answer; its sizes are then left out. */
const statLimitMs = 2000;

export function filesystemHandlers(
  compat: Compat,
  sources: FilesystemSources = {},
): Pick<Handlers, 'guest-get-fsinfo'> {
  const places = { ...defaultOptions, ...sources };
  const { sysRoot } = places;
  const view = machineViewer(places);
  return {
    async 'guest-get-fsinfo'() {
      const { table, lookup } = view();
      const entries = listed(table, compat).map(({ filesystem, mountpoint }) => ({
        chain: lookup.chainOf(filesystem),
        filesystem,
        mountpoint,
      }));
      // Newest first, as qemu-ga lists them.
      return await Promise.all(
        entries.reverse().map(async ({ filesystem, chain, mountpoint }) => ({
          name: chain.devices[0] ?? filesystem.source,
          mountpoint,
          type: filesystem.type,
          ...(await sizes(mountpoint, compat)),
          disk: chain.disks.map((disk) => diskMember(disk, leafOn(chain, disk, sysRoot))),
        })),
      );
    },
  };
}

/** qemu-ga lists each mount up to 9.x and each device once from 10.0. Oldest first. */
export function listed(
  { filesystems, mounts }: MountTable,
  compat: Compat,
): readonly { readonly filesystem: Filesystem; readonly mountpoint: string }[] {
  if (compat !== '7.2') return filesystems.map((filesystem) => ({ filesystem, mountpoint: filesystem.mountpoint }));
  return mounts.flatMap((mount) => {
    const filesystem = filesystems.find((candidate) => candidate.mounts.includes(mount));
    return filesystem === undefined ? [] : [{ filesystem, mountpoint: mount.mountpoint }];
  });
}

async function sizes(
  mountpoint: string,
  compat: Compat,
): Promise<Pick<FsInfo, 'used-bytes' | 'total-bytes' | 'total-bytes-privileged'>> {
  try {
    const stat = await withLimit(`statfs ${mountpoint}`, statLimitMs, statfs(mountpoint, { bigint: true }));
    const used = stat.blocks - stat.bfree;
    return {
      'used-bytes': used * stat.bsize,
      // What a user who is not root could fill.
      'total-bytes': (used + stat.bavail) * stat.bsize,
      ...(compat === '7.2' ? {} : { 'total-bytes-privileged': stat.blocks * stat.bsize }),
    };
  } catch {
    // QEMU's schema: optional members, absent where they cannot be had.
    return {};
  }
}

/** qemu-ga names the partition under a volume, where there is one, and not its disk. */
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
    ...(serial === undefined ? {} : { serial }),
    dev,
    ...(ccw === undefined ? {} : { 'ccw-address': ccw }),
  };
}
