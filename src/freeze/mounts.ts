// The mount table: parses mountinfo (proc_pid_mountinfo(5)), groups mounts by superblock, and says which mounts are
// data on block devices, which are not ours to open (network, FUSE, autofs), and which are hidden under others.
// Pure: the file is read by machine-view.ts. Disks behind a filesystem: disks.ts.

export interface Mount {
  readonly id: number;
  readonly parentId: number;
  /** `MAJOR:MINOR` of the superblock; major 0 (anonymous) for filesystems without one block device. */
  readonly device: string;
  /** What of the filesystem is mounted; `/` unless a bind mount or a btrfs subvolume. */
  readonly root: string;
  readonly mountpoint: string;
  readonly options: readonly string[];
  readonly type: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

/** One superblock with all its mounts in this namespace. */
export interface Filesystem {
  /** Of the first mount, as in mountinfo. */
  readonly device: string;
  readonly type: string;
  readonly source: string;
  /** In the order of mountinfo, oldest first. */
  readonly mounts: readonly Mount[];
  /** Mounts that may be opened by their path, best first: not hidden, and no network or FUSE mount on the way to them. */
  readonly reachable: readonly Mount[];
  /** Why nothing of it is reachable, if nothing is. */
  readonly unreachable?: string;
  /** For people: the mount point of the best reachable mount, else of the oldest. */
  readonly mountpoint: string;
  /** The superblock is read-only, thus every mount of it is. */
  readonly readOnly: boolean;
  /** Place of the oldest mount in mountinfo: larger is newer. */
  readonly age: number;
}

export interface SkippedMount {
  readonly what: string;
  readonly reason: string;
}

/** One that is mounted, and not in this namespace: nothing that can be opened here leads to it. */
export interface MountElsewhere {
  /** Without mounts. */
  readonly filesystem: Filesystem;
  /** Where it is, as a reason for leaving it alone. */
  readonly reason: string;
}

export interface MountTable {
  readonly mounts: readonly Mount[];
  /** Filesystems that hold data on block devices of this machine, oldest first. */
  readonly filesystems: readonly Filesystem[];
  /** Those of other mount namespaces alone (elsewhere.ts); empty where nobody looked. */
  readonly elsewhere: readonly MountElsewhere[];
  /** Network, FUSE and autofs mounts without a block device, which are never opened. */
  readonly skipped: readonly SkippedMount[];
  /** The mount that an absolute path without symbolic links leads to. */
  readonly resolve: (path: string) => Mount | undefined;
  /** The filesystem a path lies on, if it is one of `filesystems`. */
  readonly filesystemOf: (path: string) => Filesystem | undefined;
}

const NETWORK_TYPES = new Set(
  '9p acfs afs beegfs ceph cifs coda gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs pvfs2 smb3 smbfs virtiofs vboxsf vmhgfs'.split(
    ' ',
  ),
);
/** Filesystems on block devices whose superblock has an anonymous device number. */
const ANONYMOUS_TYPES = new Set(['btrfs', 'bcachefs', 'zfs']);

/** Decodes `\ooo` as the kernel writes it (space, tab, newline, backslash, #), by bytes: names are UTF-8. */
export function decodeOctal(text: string): string {
  if (!text.includes('\\')) return text;
  const binary = Buffer.from(text, 'utf8').toString('latin1');
  const decoded = binary.replace(/\\([0-3][0-7]{2})/g, (_match, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return Buffer.from(decoded, 'latin1').toString('utf8');
}

/** Throws an Error that names the line that is not mountinfo. */
export function parseMountinfo(text: string): readonly Mount[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map(parseLine);
}

function parseLine(line: string): Mount {
  const words = line.split(' ');
  const separator = words.indexOf('-', 6);
  const [id, parentId, device, root, mountpoint, options] = words;
  const [type, source, superOptions] = separator < 0 ? [] : words.slice(separator + 1);
  if (
    id === undefined ||
    parentId === undefined ||
    device === undefined ||
    root === undefined ||
    mountpoint === undefined ||
    options === undefined ||
    type === undefined ||
    !/^\d+:\d+$/.test(device)
  )
    throw new Error(`not a line of mountinfo: ${JSON.stringify(line)}`);
  return {
    id: Number(id),
    parentId: Number(parentId),
    device,
    root: decodeOctal(root),
    mountpoint: decodeOctal(mountpoint),
    options: options.split(','),
    type: decodeOctal(type),
    source: decodeOctal(source ?? ''),
    superOptions: (superOptions ?? '').split(','),
  };
}

/** The table seen as filesystems. Pure. */
export function mountTable(mounts: readonly Mount[]): MountTable {
  const resolve = resolver(mounts);
  const groups = new Map<string, Mount[]>();
  const skipped: SkippedMount[] = [];
  for (const mount of mounts) {
    // What has a block device of this machine under it is data on that disk, whoever else writes to it.
    const foreign = mount.device.startsWith('0:') ? foreignReason(mount.type) : undefined;
    if (foreign !== undefined) {
      skipped.push({ what: mount.mountpoint, reason: foreign });
    } else if (holdsBlocks(mount)) {
      const key = superblockKey(mount);
      groups.set(key, [...(groups.get(key) ?? []), mount]);
    }
  }
  const filesystems = [...groups.values()].map((group) => filesystemFrom(group, mounts, resolve));
  const byMountId = new Map(filesystems.flatMap((filesystem) => filesystem.mounts.map((m) => [m.id, filesystem])));
  return {
    mounts,
    filesystems,
    elsewhere: [],
    skipped,
    resolve,
    filesystemOf(path) {
      const mount = resolve(path);
      return mount === undefined ? undefined : byMountId.get(mount.id);
    },
  };
}

/** Filesystems of the network, and those that several machines share; the latter lie on a block device. */
export function isNetworkType(type: string): boolean {
  return NETWORK_TYPES.has(type);
}

function foreignReason(type: string): string | undefined {
  if (isNetworkType(type)) return `${type} is a network filesystem`;
  if (type === 'autofs') return 'autofs is never opened';
  // fuseblk sits on a block device, but every access goes through a process that may be held: it is in `filesystems`.
  if (type === 'fuse' || type.startsWith('fuse.')) return `${type} is served by a process`;
  return undefined;
}

function holdsBlocks(mount: Mount): boolean {
  return !mount.device.startsWith('0:') || ANONYMOUS_TYPES.has(mount.type);
}

// The subvolumes of one btrfs are one superblock; its source names one device of it, the same for all mounts.
export function superblockKey(mount: Pick<Mount, 'device' | 'type' | 'source'>): string {
  return mount.device.startsWith('0:') ? `${mount.type} ${mount.source}` : mount.device;
}

function filesystemFrom(group: Mount[], all: readonly Mount[], resolve: MountTable['resolve']): Filesystem {
  const [first] = group;
  if (first === undefined) throw new Error('a superblock without a mount');
  const visible = group.filter((mount) => resolve(mount.mountpoint) === mount);
  const open = visible.filter((mount) => foreignOnTheWay(mount, all) === undefined);
  // A mount of the whole filesystem is surely a directory; a bind mount may be of a file.
  const reachable = [...open.filter((m) => m.root === '/'), ...open.filter((m) => m.root !== '/')];
  return {
    device: first.device,
    type: first.type,
    source: first.source,
    mounts: group,
    reachable,
    ...(reachable.length > 0 ? {} : { unreachable: whyUnreachable(visible[0] ?? first, all, resolve) }),
    mountpoint: (reachable[0] ?? visible[0] ?? first).mountpoint,
    readOnly: group.every((mount) => mount.superOptions.includes('ro')),
    age: all.indexOf(first),
  };
}

function whyUnreachable(mount: Mount, all: readonly Mount[], resolve: MountTable['resolve']): string {
  const foreign = foreignOnTheWay(mount, all);
  const top = resolve(mount.mountpoint);
  if (top !== mount)
    return `hidden under ${top === undefined ? 'another mount' : `the ${top.type} mounted at ${top.mountpoint}`}, cannot be opened`;
  return `its path leads through ${foreign?.type ?? 'a mount'} at ${foreign?.mountpoint ?? 'an unknown place'}, which may not answer`;
}

/**
 * A mount that a look-up of the path passes through and that another machine or a process serves: a freezer that waits
 * for one of these thaws nothing. An autofs right under the mount is only stepped over.
 */
function foreignOnTheWay(mount: Mount, all: readonly Mount[]): Mount | undefined {
  const seen = new Set<number>();
  for (let at: Mount | undefined = mount; at !== undefined && !seen.has(at.id);) {
    seen.add(at.id);
    const { parentId, mountpoint }: Mount = at;
    const parent: Mount | undefined = all.find(({ id }) => id === parentId);
    if (parent !== undefined && parent.mountpoint !== mountpoint && foreignReason(parent.type) !== undefined)
      return parent;
    if (parent?.type.startsWith('fuseblk') === true && parent.mountpoint !== mountpoint) return parent;
    at = parent;
  }
  return undefined;
}

// Walks the tree of mounts as path lookup does. String prefixes alone would be wrong: a path may be mounted over
// twice, and a mount may lie below a directory that another mount now hides.
function resolver(mounts: readonly Mount[]): MountTable['resolve'] {
  const ids = new Set(mounts.map((mount) => mount.id));
  const children = new Map<string, Mount>();
  // The last one wins, as in the kernel's hash of mount points.
  for (const mount of mounts)
    if (mount.parentId !== mount.id) children.set(`${mount.parentId} ${mount.mountpoint}`, mount);
  const topOf = (mount: Mount, path: string): Mount => {
    const seen = new Set([mount.id]);
    let top = mount;
    for (;;) {
      const next = children.get(`${top.id} ${path}`);
      if (next === undefined || seen.has(next.id)) return top;
      seen.add(next.id);
      top = next;
    }
  };
  const root = mounts.findLast((m) => m.mountpoint === '/' && (m.parentId === m.id || !ids.has(m.parentId)));
  return (path) => {
    if (root === undefined || !path.startsWith('/')) return undefined;
    let current = topOf(root, '/');
    let prefix = '';
    for (const part of path.split('/').filter((word) => word !== '')) {
      prefix += `/${part}`;
      current = topOf(current, prefix);
    }
    return current;
  };
}
