// Finds out whether root may run a file: nobody else may be able to change it, replace it or turn the way to it
// elsewhere. Every folder in which a name is looked up counts, and every link followed on the way. The answer holds
// until root itself changes something, for nobody else can: so the file may be started by its path. It is looked at
// again before each start all the same.
import { constants, lstatSync, readlinkSync, type BigIntStats } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isErrno } from '../../errors.js';

const LINKS_AT_MOST = 40;

interface Place {
  readonly path: string;
  readonly kind: 'folder' | 'link' | 'file' | 'other';
  readonly stats: BigIntStats;
}

/** A file as it was looked at. */
export interface CheckedFile {
  /** The user who may own writers besides root. */
  readonly owner: number;
  /** See `fileIdentity`; absent where only its release is left to do. */
  readonly identity?: string;
}

/**
 * Why root must not run this file, and what mends it; undefined if it may. The file, its folder and the folder of the
 * path given must belong to root or `owner` and be writable by nobody else. Every other folder on the way must be such
 * a one, too, or be sticky (as `/tmp`), with what is looked up in it belonging to root or `owner`. Never throws.
 */
export function whyUnsafe(path: string, owner: number): string | undefined {
  return look(path, owner).problem;
}

/** As whyUnsafe, of a folder in which a file is to lie. Never throws. */
export function whyUnsafeFolder(path: string, owner: number): string | undefined {
  const places = new Map<string, Place>();
  try {
    const root = placeAt('/');
    places.set(root.path, root);
    const target = walk('/', path, (place) => places.set(place.path, place));
    const folder = places.get(target);
    if (folder?.kind !== 'folder') return `${path} is not a folder`;
    return (
      placeProblem(folder, false, owner) ??
      firstOf([...places.values()].reverse(), (place) => placeProblem(place, true, owner))
    );
  } catch (error) {
    return `${path}: ${whyNoWay(error, path)}`;
  }
}

/** A text that changes with the file's content, owner or mode; undefined if it cannot be looked at. Never throws. */
export function fileIdentity(path: string): string | undefined {
  return look(path, 0).identity;
}

/**
 * As whyUnsafe, before a writer is started once more: it must still be the file that was looked at, unless it is
 * started to let go. Never throws.
 */
export function whyUnsafeNow(
  { path, checked }: { readonly path: string; readonly checked?: CheckedFile },
  isRelease: boolean,
): string | undefined {
  const { problem, identity } = look(path, checked?.owner ?? process.getuid?.() ?? 0);
  if (problem !== undefined) return problem;
  return isRelease || checked?.identity === undefined || checked.identity === identity
    ? undefined
    : 'it was replaced or changed after the session was planned';
}

function look(path: string, owner: number): { readonly problem?: string; readonly identity?: string } {
  const places = new Map<string, Place>();
  const visit = (place: Place): void => {
    places.set(place.path, place);
  };
  try {
    visit(placeAt('/'));
    const folder = walk('/', dirname(path), visit);
    const target = walk(folder, basename(path), visit);
    const file = places.get(target);
    if (file?.kind !== 'file') return { problem: 'not a regular file' };
    const strict = [...new Set([target, dirname(target), folder])].flatMap((place) => places.get(place) ?? []);
    const problem =
      firstOf(strict, (place) => placeProblem(place, false, owner)) ??
      firstOf([...places.values()].reverse(), (place) => placeProblem(place, true, owner));
    const { dev, ino, ctimeNs, mode, uid } = file.stats;
    const identity = [dev, ino, ctimeNs, mode, uid].join(' ');
    return problem === undefined ? { identity } : { identity, problem };
  } catch (error) {
    return { problem: whyNoWay(error, path) };
  }
}

/**
 * Follows `path` from the folder `start`, whose own path has no link in it. Gives the path of the place it leads to,
 * which has none either.
 */
function walk(start: string, path: string, visit: (place: Place) => void): string {
  let at = start;
  let links = 0;
  const names = path.split('/');
  for (let name = names.shift(); name !== undefined; name = names.shift()) {
    if (name === '' || name === '.') continue;
    if (name === '..') {
      at = dirname(at);
      continue;
    }
    const place = placeAt(join(at, name));
    visit(place);
    if (place.kind !== 'link') {
      at = place.path;
      continue;
    }
    if (++links > LINKS_AT_MOST) throw new Error(`more than ${LINKS_AT_MOST} links one after the other`);
    const target = readlinkSync(place.path);
    if (target.startsWith('/')) at = '/';
    names.unshift(...target.split('/'));
  }
  return at;
}

function placeAt(path: string): Place {
  const stats = lstatSync(path, { bigint: true });
  const kind = stats.isSymbolicLink() ? 'link' : stats.isDirectory() ? 'folder' : stats.isFile() ? 'file' : 'other';
  return { path, kind, stats };
}

function placeProblem({ path, kind, stats }: Place, stickyWillDo: boolean, owner: number): string | undefined {
  const { uid } = stats;
  const mode = Number(stats.mode);
  if (uid !== 0n && uid !== BigInt(owner))
    return `${path} belongs to user ${uid}, not to root: chown ${kind === 'link' ? '-h ' : ''}root ${path}`;
  // The mode of a link itself says nothing.
  const sticky = stickyWillDo && kind === 'folder' && (mode & 0o1000) !== 0;
  if (kind !== 'link' && (mode & (constants.S_IWGRP | constants.S_IWOTH)) !== 0 && !sticky)
    return `${path} is writable by others (mode ${(mode & 0o7777).toString(8)}): chmod go-w ${path}`;
  return undefined;
}

function whyNoWay(error: unknown, path: string): string {
  if (!(error instanceof Error)) return String(error);
  if (!isErrno(error, 'ENOENT')) return error.message;
  return lstatSync(path, { throwIfNoEntry: false }) === undefined ? 'it is not there' : 'a link that leads nowhere';
}

function firstOf<T>(list: readonly T[], give: (one: T) => string | undefined): string | undefined {
  for (const one of list) {
    const given = give(one);
    if (given !== undefined) return given;
  }
  return undefined;
}
