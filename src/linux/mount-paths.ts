// Finds where a path leads in a mount table, and what is met on the way to a mount. A question takes as long as its
// path is, whatever the number of mounts. Pure.
import { mayNotAnswer } from './filesystem-types.js';
import type { Mount } from './mountinfo.js';
import type { Work } from './turns.js';

export interface MountPaths {
  /** The mount that an absolute path without symbolic links leads to. */
  readonly resolve: (path: string) => Mount | undefined;
  /**
   * The last mount on the way to this one that another machine or a process serves: a freezer that waits for one of
   * these thaws nothing. An autofs right under the mount is only stepped over.
   */
  readonly foreignOnTheWay: (mount: Mount) => Mount | undefined;
}

type Children = ReadonlyMap<number, ReadonlyMap<string, Mount>>;

// Walks the tree of mounts as path lookup does. String prefixes alone would be wrong: a path may be mounted over
// twice, and a mount may lie below a directory that another mount now hides.
export function* mountPaths(mounts: readonly Mount[]): Work<MountPaths> {
  const byId = new Map<number, Mount>();
  const children = new Map<number, Map<string, Mount>>();
  for (const [index, mount] of mounts.entries()) {
    if (index % 256 === 0) yield;
    byId.set(mount.id, mount);
    if (mount.parentId === mount.id) continue;
    const beside = children.get(mount.parentId) ?? new Map<string, Mount>();
    // The last one wins, as in the kernel's hash of mount points.
    beside.set(mount.mountpoint, mount);
    children.set(mount.parentId, beside);
  }
  const topOf = stackTops(children);
  const root = mounts.findLast((m) => m.mountpoint === '/' && (m.parentId === m.id || !byId.has(m.parentId)));
  return {
    resolve(path) {
      if (root === undefined || !path.startsWith('/')) return undefined;
      const canonical = /\/\/|.\/$/.test(path) ? `/${path.split('/').filter(Boolean).join('/')}` : path;
      let current = topOf(root, '/');
      if (canonical === '/') return current;
      for (let end = 0; end < canonical.length;) {
        const slash = canonical.indexOf('/', end + 1);
        end = slash < 0 ? canonical.length : slash;
        if (children.has(current.id)) current = topOf(current, canonical.slice(0, end));
      }
      return current;
    },
    foreignOnTheWay: nearestForeign(byId),
  };
}

/** Finds the mount on top where `mount` is met at `path`: mounts may be stacked on one place by the thousand. */
function stackTops(children: Children): (mount: Mount, path: string) => Mount {
  const tops = new Map<number, Mount>();
  return (mount, path) => {
    let top = mount;
    const passed = new Set<Mount>();
    for (;;) {
      const next = children.get(top.id)?.get(path);
      if (next === undefined || passed.has(next)) break;
      passed.add(next);
      top = tops.get(next.id) ?? next;
    }
    for (const one of passed) tops.set(one.id, top);
    return top;
  };
}

function nearestForeign(byId: ReadonlyMap<number, Mount>): MountPaths['foreignOnTheWay'] {
  const known = new Map<number, Mount | undefined>();
  return (mount) => {
    const passed: Mount[] = [];
    let found: Mount | undefined;
    let at: Mount | undefined = mount;
    while (at !== undefined && found === undefined && !known.has(at.id)) {
      // This also ends a circle, which no table has.
      known.set(at.id, undefined);
      passed.push(at);
      const parent = byId.get(at.parentId);
      if (parent !== undefined && parent.mountpoint !== at.mountpoint && mayNotAnswer(parent.type)) found = parent;
      at = parent;
    }
    found ??= at === undefined ? undefined : known.get(at.id);
    for (const one of passed) known.set(one.id, found);
    return found;
  };
}
