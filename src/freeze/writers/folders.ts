// Finds the writers there are: the folders in their precedence, the names that are ignored, and whether a file may be
// run. Starts nothing. What makes a file safe: safety.ts. What it says of itself: description.ts.
import { closeSync, openSync, readFileSync, readSync, statSync, type Stats } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { defined } from '../../defined.js';
import type { WriterListing, WriterPhase, WriterReport } from '../../consistency.js';
import { namesIn, realPath } from '../../linux/kernel-values.js';
import { describeScript, describeSidecar, PLAIN_RANK, type Described, type WriterDescription } from './description.js';
import { fileIdentity, whyUnsafe, type CheckedFile } from './safety.js';

export interface WriterFolder {
  readonly path: string;
  /**
   * The words that a plain hook in it is started with: `qemu` and `bridge` the phase alone, `dragonsdawn` the mount
   * points after it. The environment has them for all.
   */
  readonly style: 'qemu' | 'dragonsdawn' | 'bridge';
  /** If given, the one name in it that counts, even one that is ignored elsewhere. */
  readonly only?: string;
  /** It holds what our package installs: a plain freeze goes on without a writer of it that fails. */
  readonly shipped?: boolean;
}

/** The earlier one wins where two hold the same name. */
export const defaultWriterFolders: readonly WriterFolder[] = [
  { path: '/etc/fsfreeze-bridge/fsfreeze-hook.d', style: 'bridge' },
  { path: '/etc/qemu/fsfreeze-hook.d', style: 'qemu' },
  { path: '/etc/qemu-ga/fsfreeze-hook.d', style: 'qemu' },
  { path: '/usr/lib/snapshot/writers.d', style: 'dragonsdawn' },
  { path: '/usr/lib/fsfreeze-bridge/fsfreeze-hook.d', style: 'bridge', shipped: true },
];

/** A file found in a folder. It may be run if it has no `problem`. */
export interface Writer {
  readonly name: string;
  readonly path: string;
  readonly folder: WriterFolder;
  readonly kind: 'plain' | 'described' | 'resident';
  readonly required: boolean;
  /** The file itself, links followed, lies in a folder that our package installs. */
  readonly shipped?: boolean;
  readonly rank: number;
  readonly phases: readonly WriterPhase[];
  readonly description?: WriterDescription;
  /** The file as it was found; it is looked at again before each start. */
  readonly checked?: CheckedFile;
  readonly problem?: string;
  /**
   * Why it is not run: the administrator's doing (a link to /dev/null, no execute permission, hidden by an earlier
   * folder), or something to mend. Only the latter lowers the level.
   */
  readonly problemKind?: 'switched-off' | 'unsafe';
}

// As in QEMU's scripts/qemu-guest-agent/fsfreeze-hook; dragonsdawn's list is a part of it.
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
  /** The user who may own writers besides root. */
  readonly owner?: number;
}

/** All writers of all folders, in the order of their names, those too that will not be run. Never throws. */
export function findWriters(
  folders: readonly WriterFolder[],
  { owner = process.getuid?.() ?? 0 }: FindOptions = {},
): readonly Writer[] {
  const found = new Map<string, Writer>();
  const hidden: Writer[] = [];
  const ours = new Set(folders.flatMap(({ path, shipped }) => (shipped === true ? (realPath(path) ?? []) : [])));
  for (const folder of folders) {
    for (const one of writersIn(folder, owner)) {
      const real = ours.size === 0 ? undefined : realPath(one.path);
      const writer = real !== undefined && ours.has(dirname(real)) ? { ...one, shipped: true } : one;
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

/** It speaks for no application: it neither raises nor lowers a level, and its failure ends nothing. */
export function accompanies({ description }: Pick<Writer, 'description'>): boolean {
  return description?.guarantee === 'none';
}

/** What it guarantees, as reports tell it: `none` is a word that an older host does not know. */
export function guaranteeOf({ description }: Pick<Writer, 'description'>): Pick<WriterReport, 'guarantee'> {
  const guarantee = description?.guarantee;
  return guarantee === undefined || guarantee === 'none' ? {} : { guarantee };
}

/** The writer as it takes part where volumes are cut one after another. */
export function asApart(writer: Writer): Writer {
  const { description } = writer;
  if (description?.apart === undefined) return writer;
  const phases = [...description.phases, 'freeze', 'thaw'] as const;
  return { ...writer, phases, description: { ...description, phases: [...phases], guarantee: description.apart } };
}

/** The writer as requesters are told of it. */
export function listing(writer: Writer): WriterListing {
  const { name, path, kind, required, rank, phases, description, problem } = writer;
  return {
    name,
    path,
    kind,
    required,
    rank,
    phases: [...phases],
    ...guaranteeOf(writer),
    ...(accompanies(writer) ? { accompanies: true } : {}),
    ...(description === undefined || description.covers.length === 0 ? {} : { covers: [...description.covers] }),
    ...defined({ lingers: description?.lingers, problem }),
  };
}

function writersIn(folder: WriterFolder, owner: number): Writer[] {
  const { only } = folder;
  const names = namesIn(folder.path);
  const sidecars = new Set(names.filter((name) => name.endsWith('.json')));
  // It is asked for by name: if it is not there, that is something to mend.
  if (only !== undefined) return [writerAt(folder, only, owner, sidecars.has(`${only}.json`))];
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
    ...checkedAt(path, owner),
  } as const;
  if (realPath(path) === '/dev/null')
    return { ...plain, problem: 'switched off (link to /dev/null)', problemKind: 'switched-off' };
  // This comes before safety: a file that is never run, a note that a group keeps beside its hooks, is no danger.
  if (statOf(path)?.isFile() === true && !isExecutable(path))
    return folder.only === undefined
      ? { ...plain, problem: 'not executable', problemKind: 'switched-off' }
      : { ...plain, problem: `not executable: chmod +x ${path}`, problemKind: 'unsafe' };
  const unsafe = whyUnsafe(path, owner) ?? (hasSidecar ? whyUnsafe(`${path}.json`, owner) : undefined);
  if (unsafe !== undefined) return { ...plain, problem: unsafe, problemKind: 'unsafe' };
  const described = describeFile(path, hasSidecar);
  if (described.kind === 'plain') return plain;
  if (described.kind === 'bad')
    return { ...plain, kind: 'described', problem: `bad description: ${described.problem}`, problemKind: 'unsafe' };
  return withDescription(plain, described.description);
}

/** What its description makes of a file that would be a plain hook without it. */
export function withDescription(plain: Writer, description: WriterDescription): Writer {
  const { required, rank, phases, resident, guarantee } = description;
  return {
    ...plain,
    kind: resident === true ? 'resident' : 'described',
    required: required && guarantee !== 'none',
    rank,
    phases,
    description,
  };
}

// The file is looked at before it is read: what changes in between shows as a change.
function checkedAt(path: string, owner: number): { readonly checked?: CheckedFile } {
  const identity = fileIdentity(path);
  return identity === undefined ? {} : { checked: { owner, identity } };
}

/** What the file, or its sidecar beside it, says of it. Never throws. */
export function describeFile(path: string, hasSidecar: boolean): Described {
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

function isExecutable(path: string): boolean {
  return ((statOf(path)?.mode ?? 0) & 0o111) !== 0;
}

function isDirectory(path: string): boolean {
  return statOf(path)?.isDirectory() ?? false;
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    // whyUnsafe tells what is wrong with it.
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
