// Which writers there are: the folders in their precedence, the names that are ignored, and the checks a file must
// pass before root runs it. Looks at files only; what they say of themselves is read by writer-description.ts.
import { closeSync, constants, openSync, readdirSync, readFileSync, readSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { WriterListing, WriterPhase } from '../consistency.js';
import {
  describeScript,
  describeSidecar,
  PLAIN_RANK,
  type Described,
  type WriterDescription,
} from './writer-description.js';

export interface WriterFolder {
  readonly path: string;
  /**
   * What a plain hook in it is told: `qemu` the phase alone, `dragonsdawn` the mount points after it; elsewhere
   * (`bridge`) they are in the environment.
   */
  readonly style: 'qemu' | 'dragonsdawn' | 'bridge';
}

/** The earlier one wins where two hold the same name. */
export const defaultWriterFolders: readonly WriterFolder[] = [
  { path: '/etc/fsfreeze-bridge/fsfreeze-hook.d', style: 'bridge' },
  { path: '/etc/qemu/fsfreeze-hook.d', style: 'qemu' },
  { path: '/etc/qemu-ga/fsfreeze-hook.d', style: 'qemu' },
  { path: '/usr/lib/snapshot/writers.d', style: 'dragonsdawn' },
  { path: '/usr/lib/fsfreeze-bridge/fsfreeze-hook.d', style: 'bridge' },
];

/** A file found in a folder. It may be run if it has no `problem`. */
export interface Writer {
  readonly name: string;
  readonly path: string;
  readonly folder: WriterFolder;
  readonly kind: 'plain' | 'described';
  readonly required: boolean;
  readonly rank: number;
  readonly phases: readonly WriterPhase[];
  readonly description?: WriterDescription;
  readonly problem?: string;
  /**
   * Why it is not run: the administrator's doing (a link to /dev/null, no execute permission, hidden by an earlier
   * folder), or something to mend. Only the latter lowers the level.
   */
  readonly problemKind?: 'switched-off' | 'unsafe';
}

// QEMU's scripts/qemu-guest-agent/fsfreeze-hook, dragonsdawn's list is a part of it.
const IGNORED_ENDINGS =
  '~ .bak .orig .rpmnew .rpmorig .rpmsave .sample .dpkg-old .dpkg-new .dpkg-tmp .dpkg-dist .dpkg-bak .dpkg-backup .dpkg-remove'.split(
    ' ',
  );
const HEAD_BYTES = 16_384;

/** Names in a writers' folder that are passed over. */
export function isIgnoredName(name: string): boolean {
  return name.startsWith('.') || name.startsWith('README') || IGNORED_ENDINGS.some((ending) => name.endsWith(ending));
}

interface FindOptions {
  /** May own writers besides root. */
  readonly owner?: number;
}

/** All writers of all folders, in the order of their names; with those that will not be run. Never throws. */
export function findWriters(
  folders: readonly WriterFolder[],
  { owner = process.getuid?.() ?? 0 }: FindOptions = {},
): readonly Writer[] {
  const found = new Map<string, Writer>();
  const hidden: Writer[] = [];
  for (const folder of folders) {
    for (const writer of writersIn(folder, owner)) {
      const earlier = found.get(writer.name);
      if (earlier === undefined) found.set(writer.name, writer);
      else if (earlier.path !== writer.path && !sameFile(earlier.path, writer.path))
        hidden.push({ ...writer, problem: `hidden by ${earlier.path}`, problemKind: 'switched-off' });
    }
  }
  // As `LC_ALL=C` sorts, which the C library's glob and run-parts do in a daemon without a locale.
  const byName = (a: Writer, b: Writer): number => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name));
  return [...found.values(), ...hidden].sort(byName);
}

export function listing(writer: Writer): WriterListing {
  const { name, path, kind, required, rank, phases, description, problem } = writer;
  return {
    name,
    path,
    kind,
    required,
    rank,
    phases: [...phases],
    ...(description?.guarantee === undefined ? {} : { guarantee: description.guarantee }),
    ...(problem === undefined ? {} : { problem }),
  };
}

/**
 * The folders for a hook given as qemu-ga's `-F`: QEMU's dispatcher is replaced by its `.d` folder, so that nothing runs
 * twice. Undefined if the file is no dispatcher of that kind: then it is a hook of its own.
 */
export function dispatcherFolder(hookPath: string): WriterFolder | undefined {
  try {
    const text = readFileSync(hookPath, 'utf8');
    const folder = `${hookPath}.d`;
    return text.includes('fsfreeze-hook.d') && statSync(folder).isDirectory()
      ? { path: folder, style: 'qemu' }
      : undefined;
  } catch {
    return undefined;
  }
}

function writersIn(folder: WriterFolder, owner: number): Writer[] {
  let names: string[];
  try {
    names = readdirSync(folder.path).sort();
  } catch {
    return [];
  }
  const sidecars = new Set(names.filter((name) => name.endsWith('.json')));
  return names
    .filter((name) => !isIgnoredName(name) && !sidecars.has(name))
    .filter((name) => !isDirectory(join(folder.path, name)))
    .map((name) => writerAt(folder, name, owner, sidecars.has(`${name}.json`)));
}

function writerAt(folder: WriterFolder, name: string, owner: number, hasSidecar: boolean): Writer {
  const path = join(folder.path, name);
  const plain = {
    name,
    path,
    folder,
    kind: 'plain',
    required: true,
    rank: PLAIN_RANK,
    phases: ['freeze', 'thaw'],
  } as const;
  if (realPath(path) === '/dev/null')
    return { ...plain, problem: 'switched off (link to /dev/null)', problemKind: 'switched-off' };
  const unsafe = whyUnsafe(path, owner) ?? (hasSidecar ? whyUnsafe(`${path}.json`, owner) : undefined);
  if (unsafe !== undefined) return { ...plain, problem: unsafe, problemKind: 'unsafe' };
  if (!isExecutable(path)) return { ...plain, problem: 'not executable', problemKind: 'switched-off' };
  const described = describe(path, hasSidecar);
  if (described.kind === 'plain') return plain;
  if (described.kind === 'bad')
    return { ...plain, kind: 'described', problem: `bad description: ${described.problem}`, problemKind: 'unsafe' };
  const { required, rank, phases } = described.description;
  return { ...plain, kind: 'described', required, rank, phases, description: described.description };
}

function describe(path: string, hasSidecar: boolean): Described {
  try {
    const script = describeScript(headOf(path));
    if (!hasSidecar) return script;
    if (script.kind !== 'plain')
      return { kind: 'bad', problem: `described twice: at its head and in ${basename(path)}.json` };
    return describeSidecar(readFileSync(`${path}.json`, 'utf8'));
  } catch (error) {
    return { kind: 'bad', problem: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * Why root must not run this file, or undefined. Follows links; the file and its folder must belong to root or `owner`
 * and be writable by nobody else, and so must every folder above (where the sticky bit will do).
 */
export function whyUnsafe(path: string, owner: number): string | undefined {
  const target = realPath(path);
  if (target === undefined) return 'a link that leads nowhere';
  const places = [...new Set([target, dirname(target), dirname(realPath(dirname(path)) ?? path)])];
  for (const place of places) {
    const reason = placeReason(place, place !== target, false, owner);
    if (reason !== undefined) return reason;
  }
  const folders = [...ancestors(target), ...ancestors(join(realPath(dirname(path)) ?? '/', 'x'))];
  for (const place of new Set(folders)) {
    const reason = placeReason(place, true, true, owner);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

function placeReason(place: string, folder: boolean, stickyWillDo: boolean, owner: number): string | undefined {
  const { uid, mode, isRegular, isFolder } = statOf(place);
  if (folder ? !isFolder : !isRegular) return folder ? `${place} is not a folder` : 'not a regular file';
  if (uid !== 0 && uid !== owner) return `${place} belongs to user ${uid}, not to root`;
  const sticky = stickyWillDo && (mode & constants.S_IFMT) === constants.S_IFDIR && (mode & 0o1000) !== 0;
  if ((mode & 0o022) !== 0 && !sticky) return `${place} is writable by others (mode ${(mode & 0o7777).toString(8)})`;
  return undefined;
}

function statOf(path: string): { uid: number; mode: number; isRegular: boolean; isFolder: boolean } {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return { uid: 0, mode: 0, isRegular: false, isFolder: false };
  return { uid: found.uid, mode: found.mode, isRegular: found.isFile(), isFolder: found.isDirectory() };
}

function ancestors(path: string): string[] {
  const parent = dirname(path);
  return parent === path ? [] : [parent, ...ancestors(parent)];
}

function isExecutable(path: string): boolean {
  return (statOf(path).mode & 0o111) !== 0;
}

function isDirectory(path: string): boolean {
  return statOf(path).isFolder;
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync.native(path);
  } catch {
    return undefined;
  }
}

function sameFile(a: string, b: string): boolean {
  const real = realPath(a);
  return real !== undefined && real === realPath(b) && real !== '/dev/null';
}

function headOf(path: string): string {
  const fd = openSync(path, 'r');
  try {
    const head = Buffer.alloc(HEAD_BYTES);
    return head.subarray(0, readSync(fd, head)).toString('utf8');
  } finally {
    closeSync(fd);
  }
}
