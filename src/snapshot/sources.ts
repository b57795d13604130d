// Finds what the paths of a command line mean: the mount each lies on, and for a whole tree those below it. Pure but for
// following links. What is cut of it: planner.ts. Where it is shown: tree.ts.
import { realpathSync } from 'node:fs';
import { describeError, UnreachableError } from '../errors.js';
import { isFleeting, isNetworkType } from '../linux/filesystem-types.js';
import type { Mount } from '../linux/mountinfo.js';
import type { Filesystem, MountTable } from '../linux/mounts.js';

/** One place in the tree of files that is shown as it was at the cut. */
export interface Source {
  /** Where it is. */
  readonly at: string;
  /** The same place within its filesystem, from that one's root. */
  readonly inside: string;
  readonly mount: Mount;
  /** Absent for what is no data on a block device of this machine: it can be shown only as it is. */
  readonly filesystem?: Filesystem;
  /** The kernel's or in memory, and there only because it is mounted below a path that was given: nothing to be saved. */
  readonly isFleeting?: true;
}

/**
 * `whole-mounts`: each path stands for the mount it lies on (dragonsdawn-snapshot's meaning). `trees`: each path with all
 * that is mounted below it, be it data or not; of the root filesystem the paths alone, since nothing can be mounted over `/`.
 */
export type Extent = 'whole-mounts' | 'trees';

/** Parents first, each place once. Throws an UnreachableError for a path that cannot be meant. */
export function readSources(paths: readonly string[], table: MountTable, extent: Extent): readonly Source[] {
  const found = new Map<string, Source>();
  for (const path of paths) {
    const real = checkedPath(path);
    const mount = table.resolve(real);
    if (mount === undefined) throw new UnreachableError('E_SOURCE', `${path} lies on no mount of this namespace`);
    const at = extent === 'trees' && mount.mountpoint === '/' ? real : mount.mountpoint;
    for (const one of [sourceAt(at, mount, table), ...(extent === 'trees' ? below(real, table) : [])])
      found.set(one.at, one);
  }
  return [...found.values()].sort((a, b) => (a.at < b.at ? -1 : 1));
}

function checkedPath(path: string): string {
  if (!path.startsWith('/')) throw new UnreachableError('E_SOURCE', `expected an absolute path, found '${path}'`);
  if (path.split('/').includes('..'))
    throw new UnreachableError('E_SOURCE', `expected a path without .., found ${path}`);
  try {
    return realpathSync.native(path);
  } catch (cause) {
    throw new UnreachableError('E_SOURCE', `${path} cannot be looked up: ${describeError(cause)}`, { cause });
  }
}

function sourceAt(at: string, mount: Mount, table: MountTable): Source {
  const rest = mount.mountpoint === '/' ? at : at.slice(mount.mountpoint.length);
  const inside = `${mount.root}/${rest}`.replace(/\/+/g, '/').replace(/(?<=.)\/$/, '');
  const filesystem = table.filesystemOfMount(mount);
  return { at, inside, mount, ...(filesystem === undefined ? {} : { filesystem }) };
}

/**
 * Whatever is mounted below a path, and not hidden: what is left out is an empty folder as soon as what it is mounted in
 * is cut. Only /proc, /dev, /run and the like, right on the root filesystem, come with it of themselves (tree.ts).
 */
function below(path: string, table: MountTable): readonly Source[] {
  const head = path === '/' ? '/' : `${path}/`;
  const parents = new Map(table.mounts.map((mount) => [mount.id, mount]));
  const comesAlong = (mount: Mount): boolean => {
    if (!isFleeting(mount.type)) return false;
    const parent = parents.get(mount.parentId);
    return parent === undefined || parent.mountpoint === '/' || comesAlong(parent);
  };
  return table.mounts
    .filter((mount) => mount.mountpoint.startsWith(head) && mount.mountpoint !== path)
    .filter((mount) => table.resolve(mount.mountpoint) === mount)
    .filter((mount) => path !== '/' || !comesAlong(mount))
    .map((mount): Source => {
      const { filesystem, ...source } = sourceAt(mount.mountpoint, mount, table);
      if (filesystem !== undefined && !isNetworkType(mount.type)) return { ...source, filesystem };
      return { ...source, ...(isFleeting(mount.type) ? { isFleeting: true } : {}) };
    });
}
