// Filesystems that are mounted on this machine and not in our mount namespace: in that of a container or a service, in
// none that a process is in, or unmounted lazily and still in use. Nothing of theirs is opened or frozen; that they are
// there lowers the level of a cut of their disk (plan.ts). Found in two ways: the mount tables of all processes, and what
// the drivers of filesystems show of their superblocks in sysfs, which is quick and knows no namespaces.
import { readdirSync, readFileSync, readlinkSync, statfsSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { DiskLookup } from './disks.js';
import {
  mountTable,
  parseMountinfo,
  superblockKey,
  type Filesystem,
  type MountElsewhere,
  type MountTable,
} from './mounts.js';

interface Roots {
  readonly procRoot: string;
  readonly sysRoot: string;
}

/** Drivers that list their superblocks by the kernel name of the block device. */
const LISTING_TYPES: readonly string[] = ['ext4', 'xfs', 'f2fs', 'nilfs2', 'erofs'] as const;

/** Besides those: read-only whatever happens, or listed with ext4's. */
const HARMLESS_TYPES = ['btrfs', 'ext2', 'ext3', 'squashfs', 'iso9660', 'cramfs', 'romfs'];

/** A driver is there whose superblocks sysfs does not list: only the mount tables of all processes tell of its mounts. */
export function hasUnlistedTypes({ procRoot, sysRoot }: Roots): boolean {
  const registered = read(join(procRoot, 'filesystems'));
  // ext2 has a driver of its own, or is served by ext4's.
  if (registered === undefined || list(join(sysRoot, 'module/ext2')).length > 0) return true;
  const onDisk = registered.split('\n').flatMap((line) => (line.startsWith('nodev') ? [] : [line.trim()]));
  const listed = [...LISTING_TYPES, ...HARMLESS_TYPES, ...(hasFuseMounts(sysRoot) ? [] : ['fuseblk'])];
  return onDisk.some((type) => type !== '' && !listed.includes(type));
}

/** FUSE_CTL_SUPER_MAGIC (linux/magic.h): the filesystem that lists every FUSE mount, of whatever namespace. */
const FUSE_CTL = 0x65735543;

function hasFuseMounts(sysRoot: string): boolean {
  const connections = join(sysRoot, 'fs/fuse/connections');
  try {
    return statfsSync(connections).type !== FUSE_CTL || list(connections).length > 0;
  } catch {
    return true;
  }
}

/** Of the mount tables of all processes. A process that ends meanwhile, or cannot be looked at, is passed over. */
export function mountsOfProcesses(own: MountTable, procRoot: string): readonly MountElsewhere[] {
  const seen = new Set([namespaceOf(procRoot, 'self')]);
  const known = new Set(own.filesystems.map(superblockKey));
  const found: MountElsewhere[] = [];
  for (const pid of list(procRoot)) {
    if (!/^\d+$/.test(pid)) continue;
    const namespace = namespaceOf(procRoot, pid);
    if (namespace === undefined || seen.has(namespace)) continue;
    const table = tableOf(procRoot, pid);
    if (table === undefined) continue;
    seen.add(namespace);
    const who = `process ${pid} (${read(join(procRoot, pid, 'comm')) ?? 'unknown'})`;
    for (const filesystem of table.filesystems) {
      const key = superblockKey(filesystem);
      if (known.has(key)) continue;
      known.add(key);
      const mountpoint = join(procRoot, pid, 'root', filesystem.mountpoint);
      found.push({
        filesystem: { ...filesystem, mountpoint, mounts: [], reachable: [] },
        reason: `mounted in the mount namespace of ${who} alone, not touched`,
      });
    }
  }
  return found;
}

/** One name for each superblock that a driver lists: changes as soon as a filesystem comes or goes, wherever it is. */
export function listedSuperblocks(sysRoot: string): readonly string[] {
  const byDevice = LISTING_TYPES.flatMap((type) => list(join(sysRoot, 'fs', type)).map((name) => `${type}/${name}`));
  return [...byDevice, ...list(join(sysRoot, 'fs/btrfs')).map((fsid) => `btrfs/${fsid}`)];
}

/** Of `listed`, those in neither `own` nor `elsewhere`. */
export function mountedUnseen(
  listed: readonly string[],
  own: MountTable,
  elsewhere: readonly MountElsewhere[],
  lookup: DiskLookup,
  roots: Roots,
): readonly MountElsewhere[] {
  const filesystems = [...own.filesystems, ...elsewhere.map(({ filesystem }) => filesystem)];
  const accounted = new Set(filesystems.flatMap((filesystem) => [...lookup.chainOf(filesystem).devices]));
  return listed.flatMap((entry): MountElsewhere[] => {
    const [type = '', name = ''] = entry.split('/');
    const devices = type === 'btrfs' ? list(join(roots.sysRoot, 'fs/btrfs', name, 'devices')) : [name];
    const [device] = devices;
    const number = device === undefined ? undefined : read(join(roots.sysRoot, 'class/block', device, 'dev'));
    // Drivers keep other things there too.
    if (device === undefined || number === undefined || devices.some((one) => accounted.has(one))) return [];
    return [unseen(type, device, number, roots)];
  });
}

function unseen(type: string, device: string, number: string, { procRoot }: Roots): MountElsewhere {
  const source = `/dev/${device.replaceAll('!', '/')}`;
  // ext4 alone tells; of the others the worse is taken.
  const options = read(join(procRoot, 'fs', type, basename(device), 'options'));
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

function namespaceOf(procRoot: string, pid: string): string | undefined {
  try {
    return readlinkSync(join(procRoot, pid, 'ns/mnt'));
  } catch {
    return undefined;
  }
}

function tableOf(procRoot: string, pid: string): MountTable | undefined {
  const text = read(join(procRoot, pid, 'mountinfo'));
  if (text === undefined) return undefined;
  try {
    return mountTable(parseMountinfo(text));
  } catch {
    return undefined;
  }
}

function list(path: string): readonly string[] {
  try {
    return readdirSync(path).sort();
  } catch {
    return [];
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').replace(/\n$/, '');
  } catch {
    return undefined;
  }
}
