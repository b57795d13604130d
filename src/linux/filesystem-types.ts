// Tells from its type whether a filesystem is data on block devices of this machine, and whether another machine or a
// process answers for it. Pure.
import type { Mount } from './mountinfo.js';

const NETWORK_TYPES = new Set(
  '9p acfs afs beegfs ceph cifs coda gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs pvfs2 smb3 smbfs virtiofs vboxsf vmhgfs'.split(
    ' ',
  ),
);
/** What the kernel answers by itself, what is kept in memory, and places where something would be mounted. */
const FLEETING_TYPES = new Set(
  'autofs binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts devtmpfs efivarfs fusectl hugetlbfs mqueue nsfs proc pstore ramfs rpc_pipefs securityfs selinuxfs smackfs sysfs tmpfs tracefs'.split(
    ' ',
  ),
);
/** Filesystems on block devices whose superblock has an anonymous device number. */
const ANONYMOUS_TYPES = new Set(['btrfs', 'bcachefs', 'zfs']);

/** Filesystems of the network, and those that several machines share; the latter lie on a block device. */
export function isNetworkType(type: string): boolean {
  return NETWORK_TYPES.has(type);
}

/** Nothing in it outlives the machine's run, whoever reads it. */
export function isFleeting(type: string): boolean {
  return FLEETING_TYPES.has(type);
}

/** Why a mount of this type is not ours to open, if it is not: a look into it may never come back. */
function foreignReason(type: string): string | undefined {
  if (isNetworkType(type)) return `${type} is a network filesystem`;
  if (type === 'autofs') return 'autofs is never opened';
  // fuseblk sits on a block device, but every access goes through a process that may be held: see `mayNotAnswer`.
  if (type === 'fuse' || type.startsWith('fuse.')) return `${type} is served by a process`;
  return undefined;
}

/** Looking up a path through a mount of this type may never come back. */
export function mayNotAnswer(type: string): boolean {
  return type.startsWith('fuseblk') || foreignReason(type) !== undefined;
}

/** Why a mount without a block device is not ours to open, if it is not. */
export function skipReason({ device, type }: Mount): string | undefined {
  // What has a block device of this machine under it is data on that disk, whoever else writes to it.
  return device.startsWith('0:') ? foreignReason(type) : undefined;
}

/** The mount holds data on block devices of this machine. */
export function holdsBlocks({ device, type }: Mount): boolean {
  return !device.startsWith('0:') || ANONYMOUS_TYPES.has(type);
}

/** Alike for all mounts of one superblock: a btrfs has one device number for each subvolume, and one source for all. */
export function superblockKey(mount: Pick<Mount, 'device' | 'type' | 'source'>): string {
  return mount.device.startsWith('0:') ? `${mount.type} ${mount.source}` : mount.device;
}
