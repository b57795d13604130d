// What a freeze by a stock qemu-ga proves. The agent tells only which filesystems lie on which disks, and two counts.
// The
// counts must be equal and must be those of all filesystems, and the disks named must be among theirs.
import { defined } from '../defined.js';
import type { DiskRef, FilesystemReport } from '../consistency.js';
import type { Returns } from './commands.js';

export type FsInfo = Returns<'guest-get-fsinfo'>;

export interface Survey {
  /** One per filesystem, however often it is mounted. */
  readonly filesystems: readonly Omit<FilesystemReport, 'held'>[];
  /** Disks asked for that no filesystem lies on, as people name them. */
  readonly uncovered: readonly string[];
  /** Mount points asked for that the agent does not know. */
  readonly unknownMountpoints: readonly string[];
}

/** Types of filesystems that are never written to: there is nothing to freeze, and qemu-ga does not count them. */
const readOnlyTypes: ReadonlySet<string> = new Set(['iso9660', 'squashfs', 'erofs', 'cramfs', 'romfs', 'udf']);

/** Types that Linux cannot freeze (FIFREEZE answers EOPNOTSUPP): qemu-ga passes them over, and does not count them. */
const unfreezableTypes: ReadonlySet<string> = new Set(['vfat', 'msdos', 'exfat', 'fuseblk', 'ntfs3', 'hfsplus']);

/** Reads guest-get-fsinfo for the disks and mount points asked for. */
export function survey(
  fsinfo: FsInfo,
  disks: readonly DiskRef[] | undefined,
  mountpoints: readonly string[] | undefined,
): Survey {
  const byDevice = new Map<string, Omit<FilesystemReport, 'held'>>();
  const found = new Set<DiskRef>();
  for (const { name, mountpoint, type, disk } of fsinfo) {
    const refs = disk.map(toRef);
    const wanted = disks?.filter((one) => refs.some((ref) => isSame(one, ref))) ?? [];
    for (const one of wanted) found.add(one);
    if (byDevice.has(name)) continue;
    byDevice.set(name, {
      mountpoint,
      type,
      source: `/dev/${name}`,
      device: 'unknown',
      disks: refs,
      concerned: (disks === undefined || wanted.length > 0) && !readOnlyTypes.has(type),
    });
  }
  return {
    filesystems: [...byDevice.values()],
    uncovered: (disks ?? []).filter((disk) => !found.has(disk)).map(diskName),
    unknownMountpoints: (mountpoints ?? []).filter((path) => !fsinfo.some(({ mountpoint }) => mountpoint === path)),
  };
}

export function canFreeze({ type }: { readonly type: string }): boolean {
  return !unfreezableTypes.has(type);
}

export interface Counts {
  readonly frozen: number;
  /** How many were thawed; undefined while the freeze lasts, or if a reply was lost. */
  readonly thawed: number | undefined;
  /** For people: what went wrong at the thaw. */
  readonly trouble?: string;
}

/** Why the level is not `filesystem`, one sentence per reason; empty if it is. */
export function objections(
  { filesystems, uncovered, unknownMountpoints }: Survey,
  mountpoints: readonly string[] | undefined,
  { frozen, thawed, trouble }: Counts,
  isOver: boolean,
): readonly string[] {
  const asked = filesystems.filter(({ concerned }) => concerned);
  const left = mountpoints === undefined ? [] : asked.filter((one) => !mountpoints.includes(one.mountpoint));
  // Every filesystem that can be written counts: qemu-ga froze them all, and does not say which one it passed over.
  const writable = filesystems.filter(({ type }) => !readOnlyTypes.has(type));
  const all = mountpoints?.length ?? writable.length;
  const named = mountpoints === undefined ? writable : writable.filter((one) => mountpoints.includes(one.mountpoint));
  const expected = all - named.filter((one) => !canFreeze(one)).length;
  const reasons: string[] = [];
  if (uncovered.length > 0) reasons.push(`no filesystem is known on ${uncovered.join(', ')}`);
  if (unknownMountpoints.length > 0) reasons.push(`not mounted: ${unknownMountpoints.join(', ')}`);
  if (left.length > 0) reasons.push(`not asked to be frozen: ${left.map(({ mountpoint }) => mountpoint).join(', ')}`);
  if (frozen === 0) reasons.push('no filesystem was frozen');
  // A count between the two may hide that one was frozen that should not be, and one was not that should be.
  else if (frozen < expected || (frozen > expected && frozen < all))
    reasons.push(`${frozen} of ${expected} filesystems were frozen, and not which is not said`);
  if (trouble !== undefined) reasons.push(trouble);
  else if (isOver && thawed !== frozen) {
    reasons.push(`${frozen} filesystems were frozen, but ${thawed ?? 'an unknown number'} thawed: somebody else did`);
  }
  return reasons;
}

type StockDisk = FsInfo[number]['disk'][number];

function toRef(disk: StockDisk): DiskRef {
  const pci = disk['pci-controller'];
  const isKnown = Number(pci.bus) >= 0 && Number(pci.slot) >= 0;
  const pciAddress = `${hex(pci.domain, 4)}:${hex(pci.bus, 2)}:${hex(pci.slot, 2)}.${Number(pci.function).toString(16)}`;
  return {
    ...defined({ serial: disk.serial }),
    ...(isKnown ? { pciAddress } : {}),
    ...defined({ dev: disk.dev }),
  };
}

const hex = (value: number | bigint, width: number): string => value.toString(16).padStart(width, '0');

/** virtio-blk gives the guest 20 bytes of a serial. */
const SERIAL_BYTES = 20;

/** True for one disk: compared by serial if both have one, else by PCI address. */
function isSame(one: DiskRef, other: DiskRef): boolean {
  if (one.serial !== undefined && other.serial !== undefined) {
    return one.serial === other.serial || cut(one.serial) === cut(other.serial);
  }
  return one.pciAddress !== undefined && one.pciAddress.toLowerCase() === other.pciAddress;
}

const cut = (serial: string): string => Buffer.from(serial).subarray(0, SERIAL_BYTES).toString('latin1');

const diskName = ({ serial, pciAddress }: DiskRef): string =>
  serial === undefined ? `disk at ${pciAddress ?? 'no address'}` : `disk ${serial}`;
