// Says which filesystems the guest's configuration takes out of the freeze: by mount point and by type. A filesystem
// that is taken out stays concerned, and is not held: the level tells (plan.ts, verdict.ts). Pure. The keys:
// src/agent/configuration.ts.
import type { Filesystem } from '../../linux/mounts.js';

/** Globs of mount points (see `mountpointGlob`), and names of filesystem types. Empty lists rule nothing out. */
export interface FreezeRules {
  /** If this list or the next one is given, only what one of them names is frozen. */
  readonly includeMountpoints: readonly string[];
  readonly includeTypes: readonly string[];
  /** Filesystems that are not frozen, whatever the two lists above say. */
  readonly excludeMountpoints: readonly string[];
  readonly excludeTypes: readonly string[];
}

export const noRules: FreezeRules = {
  includeMountpoints: [],
  includeTypes: [],
  excludeMountpoints: [],
  excludeTypes: [],
};

/**
 * `?` is any character but `/`, `*` any number of these, `**` any characters at all; the rest is literal. Undefined if
 * the text is no glob of a mount point: not absolute, not as mountinfo writes paths, or with brackets or braces, which
 * other globs have and these do not.
 */
export function mountpointGlob(glob: string): RegExp | undefined {
  const path = /^\/(?:[^/]+(?:\/[^/]+)*)?$/;
  if (!path.test(glob) || /[[\]{}]/.test(glob) || glob.split('/').some((part) => part === '.' || part === '..'))
    return undefined;
  const source = glob.replace(/\*+|\?|[\\^$.|+()]/g, (special) => {
    if (special === '?') return '[^/]';
    if (special.startsWith('*')) return special === '*' ? '[^/]*' : '.*';
    return `\\${special}`;
  });
  return new RegExp(`^${source}$`, 's');
}

/** Why it is taken out, undefined if it is not. One matching mount point speaks for all of a filesystem's. */
export function ruledOut({ type, mounts }: Filesystem, rules: FreezeRules): string | undefined {
  const { includeMountpoints, includeTypes, excludeMountpoints, excludeTypes } = rules;
  const matching = (globs: readonly string[]): string | undefined =>
    globs.find((glob) => {
      const pattern = mountpointGlob(glob);
      return mounts.some(({ mountpoint }) => pattern?.test(mountpoint) === true);
    });
  const excluding = matching(excludeMountpoints);
  if (excluding !== undefined) return `excluded by configuration (exclude-mountpoints: ${excluding})`;
  if (excludeTypes.includes(type)) return `excluded by configuration (exclude-types: ${type})`;
  if (includeMountpoints.length + includeTypes.length === 0) return undefined;
  if (includeTypes.includes(type) || matching(includeMountpoints) !== undefined) return undefined;
  return 'excluded by configuration (neither in include-mountpoints nor in include-types)';
}
