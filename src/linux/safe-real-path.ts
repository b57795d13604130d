// Follows the symbolic links of a path without a look into what may not answer: realpath(3) on a hung NFS or FUSE mount
// holds the whole process, which then cannot even be killed.
import { dirname, join } from 'node:path';
import { mayNotAnswer } from './filesystem-types.js';
import { linkTarget } from './kernel-values.js';
import type { MountTable } from './mounts.js';

/** As the kernel's own limit (MAXSYMLINKS, path_resolution(7)). */
const LINKS_AT_MOST = 40;

/**
 * A part that does not exist stays as it is, and so does the rest of a path from where it enters a mount that another
 * machine or a process serves. `path`: absolute. Never throws.
 */
export function safeRealPath(path: string, table: MountTable): string {
  let links = 0;
  let real = '/';
  const parts = path.split('/');
  for (let part = parts.shift(); part !== undefined; part = parts.shift()) {
    if (part === '..') real = dirname(real);
    if (part === '' || part === '.' || part === '..') continue;
    const next = join(real, part);
    if (mayNotAnswer(table.resolve(next)?.type ?? '')) return join(next, ...parts);
    const target = linkTarget(next);
    if (target === undefined) real = next;
    else {
      if (++links > LINKS_AT_MOST) return path;
      parts.unshift(...target.split('/'));
      if (target.startsWith('/')) real = '/';
    }
  }
  return real;
}
