// Makes a table of filesystems out of mounts: groups them by superblock, and says which are data on block devices,
// which are not ours to open (network, FUSE, autofs), and which are hidden under others. Pure, and linear in the number
// of mounts: there may be 40,000 of one filesystem. The text: mountinfo.ts. The disks: disks.ts.
import { holdsBlocks, skipReason, superblockKey } from './filesystem-types.js';
import { mountPaths, type MountPaths } from './mount-paths.js';
import type { Mount } from './mountinfo.js';
import type { Work } from './turns.js';

/** One superblock with all its mounts in this namespace. */
export interface Filesystem {
  /** As mountinfo has it for the first mount. */
  readonly device: string;
  readonly type: string;
  readonly source: string;
  /** In the order of mountinfo, oldest first. */
  readonly mounts: readonly Mount[];
  /**
   * Mounts that may be opened by their path, best first: not hidden, and no network or FUSE mount on the way to them.
   */
  readonly reachable: readonly Mount[];
  /** Why it has no reachable mount, if it has none. */
  readonly unreachable?: string;
  /** For people: the mount point of the best reachable mount, else of the oldest. */
  readonly mountpoint: string;
  /** The superblock is read-only, and so is every mount of it. */
  readonly readOnly: boolean;
  /** Place of the oldest mount in mountinfo: larger is newer. */
  readonly age: number;
}

export interface SkippedMount {
  readonly what: string;
  readonly reason: string;
}

/** A filesystem that is mounted, but not in this namespace: nothing that can be opened here leads to it. */
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
  /** Filesystems of other mount namespaces alone (other-namespaces.ts); empty where nobody looked. */
  readonly elsewhere: readonly MountElsewhere[];
  /** Network, FUSE and autofs mounts without a block device, which are never opened. */
  readonly skipped: readonly SkippedMount[];
  /** The mount that an absolute path without symbolic links leads to. */
  readonly resolve: (path: string) => Mount | undefined;
  /** The filesystem a path lies on, if it is one of `filesystems`. */
  readonly filesystemOf: (path: string) => Filesystem | undefined;
  /** The filesystem of a mount of this table, if it is one of `filesystems`. */
  readonly filesystemOfMount: (mount: Mount) => Filesystem | undefined;
  /** All mounts made at this very path, hidden ones too, oldest first. */
  readonly mountedAt: (path: string) => readonly Mount[];
}

interface Group {
  readonly first: Mount;
  readonly age: number;
  readonly mounts: Mount[];
}

/** The table seen as filesystems. */
export function* mountTable(mounts: readonly Mount[]): Work<MountTable> {
  const groups = new Map<string, Group>();
  const skipped: SkippedMount[] = [];
  for (const [index, mount] of mounts.entries()) {
    if (index % 256 === 0) yield;
    const reason = skipReason(mount);
    if (reason !== undefined) skipped.push({ what: mount.mountpoint, reason });
    else if (holdsBlocks(mount)) {
      const key = superblockKey(mount);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, { first: mount, age: index, mounts: [mount] });
      else group.mounts.push(mount);
    }
  }
  const paths = yield* mountPaths(mounts);
  const filesystems: Filesystem[] = [];
  const byMount = new Map<Mount, Filesystem>();
  for (const group of groups.values()) {
    const filesystem = yield* filesystemFrom(group, paths);
    filesystems.push(filesystem);
    for (const mount of group.mounts) byMount.set(mount, filesystem);
  }
  const { resolve } = paths;
  const filesystemOfMount = (mount: Mount): Filesystem | undefined => byMount.get(mount);
  return {
    mounts,
    filesystems,
    elsewhere: [],
    skipped,
    resolve,
    filesystemOf(path) {
      const mount = resolve(path);
      return mount === undefined ? undefined : filesystemOfMount(mount);
    },
    filesystemOfMount,
    mountedAt: placesOf(mounts),
  };
}

// Few ask: the index is made when the first does.
function placesOf(mounts: readonly Mount[]): MountTable['mountedAt'] {
  let places: Map<string, Mount[]> | undefined;
  const collect = (): Map<string, Mount[]> => {
    const all = new Map<string, Mount[]>();
    for (const mount of mounts) {
      const there = all.get(mount.mountpoint);
      if (there === undefined) all.set(mount.mountpoint, [mount]);
      else there.push(mount);
    }
    return all;
  };
  return (path) => (places ??= collect()).get(path) ?? [];
}

function* filesystemFrom({ first, age, mounts }: Group, paths: MountPaths): Work<Filesystem> {
  const whole: Mount[] = [];
  const parts: Mount[] = [];
  let visible: Mount | undefined;
  for (const [index, mount] of mounts.entries()) {
    if (index % 256 === 0) yield;
    if (paths.resolve(mount.mountpoint) !== mount) continue;
    visible ??= mount;
    // A mount of the whole filesystem is surely a directory; a bind mount may be of a file.
    if (paths.foreignOnTheWay(mount) === undefined) (mount.root === '/' ? whole : parts).push(mount);
  }
  const reachable = [...whole, ...parts];
  return {
    device: first.device,
    type: first.type,
    source: first.source,
    mounts,
    reachable,
    ...(reachable.length > 0 ? {} : { unreachable: whyUnreachable(visible ?? first, paths) }),
    mountpoint: (reachable[0] ?? visible ?? first).mountpoint,
    readOnly: isReadOnly(first),
    age,
  };
}

/** The superblock of the mount is read-only, and so are all its mounts. */
export function isReadOnly({ superOptions }: Mount): boolean {
  return superOptions.includes('ro');
}

function whyUnreachable(mount: Mount, { resolve, foreignOnTheWay }: MountPaths): string {
  const foreign = foreignOnTheWay(mount);
  const top = resolve(mount.mountpoint);
  if (top !== mount)
    return `hidden under ${top === undefined ? 'another mount' : `the ${top.type} mounted at ${top.mountpoint}`}, cannot be opened`;
  return `its path leads through ${foreign?.type ?? 'a mount'} at ${foreign?.mountpoint ?? 'an unknown place'}, which may not answer`;
}
