// Finds filesystems that are mounted on this machine, but not in our mount namespace: in that of a container or a
// service, in none that a process is in, or unmounted lazily and still in use. They are neither opened nor frozen; that
// they are there lowers the level of a cut of their disk (src/freeze/judgement/plan.ts). Two things tell of them: the
// superblocks that drivers list in sysfs, which is quick and knows no namespaces; and the mount tables of all
// processes, which are read only where a superblock may be mounted that is not known yet.
import { statfsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { nodeNamed } from './block-tree.js';
import type { DiskLookup } from './disks.js';
import { holdsBlocks, skipReason, superblockKey } from './filesystem-types.js';
import { linkTarget, namesIn, readText, readValue } from './kernel-values.js';
import { mountsOfNewDevices, readInTurns, type Mount } from './mountinfo.js';
import { isReadOnly, type Filesystem, type MountElsewhere, type MountTable } from './mounts.js';
import type { Work } from './turns.js';

interface Roots {
  readonly procRoot: string;
  readonly sysRoot: string;
}

/** Drivers that list their superblocks by the kernel name of the block device. */
const LISTING_TYPES: readonly string[] = ['ext4', 'xfs', 'f2fs', 'nilfs2', 'erofs'] as const;

/**
 * Types that need no list: read-only whatever happens, listed with ext4's, or listed by a folder of their own (btrfs).
 */
const HARMLESS_TYPES = ['btrfs', 'ext2', 'ext3', 'squashfs', 'iso9660', 'cramfs', 'romfs'];

/**
 * A superblock may be mounted that neither `own` has nor sysfs lists: only the mount tables of all processes tell of
 * it. A driver that is a module is held once for each superblock, if not more often (get_filesystem(),
 * fs/filesystems.c).
 */
export function hasUnlisted({ filesystems }: MountTable, { procRoot, sysRoot }: Roots): boolean {
  const registered = readText(join(procRoot, 'filesystems'));
  if (registered === undefined) return true;
  const onDisk = registered.split('\n').flatMap((line) => (line.startsWith('nodev') ? [] : [line.trim()]));
  // ext2 has a driver of its own, or is served by ext4's.
  const harmless = namesIn(join(sysRoot, 'module/ext2')).length > 0 ? without(HARMLESS_TYPES, 'ext2') : HARMLESS_TYPES;
  const listed = [...LISTING_TYPES, ...harmless, ...(hasFuseMounts(sysRoot) ? [] : ['fuseblk']), ''];
  return onDisk.some((type) => {
    if (listed.includes(type)) return false;
    const uses = readText(join(sysRoot, 'module', type, 'refcnt'));
    return uses === undefined || Number(uses) > filesystems.filter((known) => known.type === type).length;
  });
}

function without(list: readonly string[], one: string): readonly string[] {
  return list.filter((other) => other !== one);
}

/** FUSE_CTL_SUPER_MAGIC (linux/magic.h): the filesystem that lists every FUSE mount, of whatever namespace. */
const FUSE_CTL = 0x65735543;

function hasFuseMounts(sysRoot: string): boolean {
  const connections = join(sysRoot, 'fs/fuse/connections');
  try {
    return statfsSync(connections).type !== FUSE_CTL || namesIn(connections).length > 0;
  } catch {
    return true;
  }
}

/**
 * Filesystems in the mount tables of all processes that `own` has not. In each table only superblocks are looked at
 * that no table before it had. A process that ends meanwhile, or cannot be looked at, is passed over.
 */
export function* mountsOfProcesses(own: MountTable, procRoot: string): Work<readonly MountElsewhere[]> {
  const namespaces = new Set([namespaceOf(procRoot, 'self')]);
  const devices = new Set(own.mounts.map(({ device }) => device));
  const known = new Set(own.filesystems.map(superblockKey));
  const found: MountElsewhere[] = [];
  for (const pid of namesIn(procRoot)) {
    if (!/^\d+$/.test(pid)) continue;
    yield;
    const namespace = namespaceOf(procRoot, pid);
    if (namespace === undefined || namespaces.has(namespace)) continue;
    const mounts = yield* newMountsOf(procRoot, pid, devices);
    if (mounts === undefined) continue;
    namespaces.add(namespace);
    const who = `process ${pid} (${nameOf(procRoot, pid) ?? 'unknown'})`;
    for (const mount of mounts) {
      devices.add(mount.device);
      const key = superblockKey(mount);
      if (skipReason(mount) !== undefined || !holdsBlocks(mount) || known.has(key)) continue;
      known.add(key);
      found.push({
        filesystem: filesystemOf(mount, join(procRoot, pid, 'root', mount.mountpoint)),
        reason: `mounted in the mount namespace of ${who} alone, not touched`,
      });
    }
  }
  return found;
}

function filesystemOf(mount: Mount, mountpoint: string): Filesystem {
  const { device, type, source } = mount;
  const there = { mounts: [], reachable: [], mountpoint, age: -1 };
  return { device, type, source, readOnly: isReadOnly(mount), ...there };
}

/** One name for each superblock that a driver lists: changes as soon as a filesystem comes or goes, wherever it is. */
export function listedSuperblocks(sysRoot: string): readonly string[] {
  const byDevice = LISTING_TYPES.flatMap((type) => namesIn(join(sysRoot, 'fs', type)).map((name) => `${type}/${name}`));
  return [...byDevice, ...namesIn(join(sysRoot, 'fs/btrfs')).map((fsid) => `btrfs/${fsid}`)];
}

/** Those of `listed` that are superblocks, and lie on none of the devices that filesystems of `known` lie on. */
export function unknownSuperblocks(
  listed: readonly string[],
  known: readonly Filesystem[],
  lookup: DiskLookup,
  sysRoot: string,
): readonly UnknownSuperblock[] {
  const accounted = new Set(known.flatMap((filesystem) => lookup.chainOf(filesystem).devices));
  return listed.flatMap((entry): UnknownSuperblock[] => {
    const [type = '', name = ''] = entry.split('/');
    const devices = type === 'btrfs' ? namesIn(join(sysRoot, 'fs/btrfs', name, 'devices')) : [name];
    const [device] = devices;
    if (device === undefined || devices.some((one) => accounted.has(one))) return [];
    const number = readValue(join(sysRoot, 'class/block', device, 'dev'));
    // Drivers keep other things there too.
    return number === undefined ? [] : [{ type, device, number }];
  });
}

interface UnknownSuperblock {
  readonly type: string;
  /** Kernel name of its first block device. */
  readonly device: string;
  readonly number: string;
}

/** A superblock that no mount table has. */
export function unseen({ type, device, number }: UnknownSuperblock, procRoot: string): MountElsewhere {
  const source = nodeNamed(device);
  // ext4 alone tells; any other is taken to be writable.
  const options = readText(join(procRoot, 'fs', type, basename(device), 'options'));
  const filesystem: Filesystem = {
    device: type === 'btrfs' ? '0:0' : number,
    type,
    source,
    mounts: [],
    reachable: [],
    mountpoint: source,
    readOnly: type === 'erofs' || options?.split('\n')[0] === 'ro',
    age: -1,
  };
  const reason = 'mounted where nobody sees it (unmounted while in use, or in a mount namespace without a process)';
  return { filesystem, reason: `${reason}, not touched` };
}

/** Some have no name. */
function nameOf(procRoot: string, pid: string): string | undefined {
  return readText(join(procRoot, pid, 'comm'))?.replace(/\n$/, '');
}

function namespaceOf(procRoot: string, pid: string): string | undefined {
  return linkTarget(join(procRoot, pid, 'ns/mnt'));
}

function* newMountsOf(procRoot: string, pid: string, devices: ReadonlySet<string>): Work<readonly Mount[] | undefined> {
  try {
    const text = yield* readInTurns(join(procRoot, pid, 'mountinfo'));
    return yield* mountsOfNewDevices(text.toString('latin1'), devices);
  } catch {
    return undefined;
  }
}
