// Makes and describes image files by qemu-img, and finds out whether any process holds one. QEMU's own lock is not
// enough for that: a raw image that is only read shares it with everybody.
import type { BigIntStats } from 'node:fs';
import { readFile, readdir, stat } from 'node:fs/promises';
import * as v from 'valibot';
import { defined } from '../../defined.js';
import { CutError, isErrno, UsageError } from '../../errors.js';
import { identityIn } from './same-file.js';

const infoSchema = v.object({
  filename: v.string(),
  format: v.string(),
  'virtual-size': v.pipe(v.number(), v.safeInteger()),
  'actual-size': v.optional(v.pipe(v.number(), v.safeInteger())),
  'backing-filename': v.optional(v.string()),
  'full-backing-filename': v.optional(v.string()),
  'backing-filename-format': v.optional(v.string()),
  encrypted: v.optional(v.boolean(), false),
  /** Whoever wrote to it has it open still, or could not write all of its tables. */
  'dirty-flag': v.optional(v.boolean(), false),
});
export type ImageInfo = v.InferOutput<typeof infoSchema>;

const QEMU_IMG_LIMIT_MS = 60_000;

/** Runs qemu-img; its stdout. Throws a CutError with its own words. */
async function qemuImg(args: readonly string[], signal?: AbortSignal): Promise<string> {
  // Here, since most commands start nothing. `snapshot create` makes its overlays before anything is held.
  const { execa } = await import('execa');
  const result = await execa('qemu-img', args, {
    timeout: QEMU_IMG_LIMIT_MS,
    reject: false,
    stdin: 'ignore',
    ...defined({ cancelSignal: signal }),
  });
  if (!result.failed) return result.stdout;
  signal?.throwIfAborted();
  if (result.code === 'ENOENT') throw new UsageError('E_QEMU_IMG', 'qemu-img is not installed (Debian: qemu-utils)');
  const reason = result.timedOut
    ? `no end within ${QEMU_IMG_LIMIT_MS} ms`
    : result.stderr.trim() || (result.shortMessage ?? 'it failed');
  throw new CutError('E_QEMU_IMG', `qemu-img ${args[0] ?? ''}: ${reason.split('\n').join('; ')}`);
}

/** Reads what the file's header says, also while a VM uses the image. Throws a CutError. */
export async function imageInfo(file: string): Promise<ImageInfo> {
  const text = await qemuImg(['info', '--output=json', '-U', '-f', 'qcow2', file]);
  const parsed = v.safeParse(infoSchema, JSON.parse(text));
  if (parsed.success) return parsed.output;
  throw new CutError('E_QEMU_IMG', `qemu-img info ${file}: ${parsed.issues[0].message}`);
}

export interface NewOverlay {
  readonly file: string;
  /** A path, or a name of QEMU's with options (`json:...`). */
  readonly base: string;
  readonly baseFormat: string;
  readonly virtualSize: number;
}

/** Makes an empty qcow2 that names its base; the base is not opened (a running VM locks it). Overwrites `file`. */
export async function makeOverlay(
  { file, base, baseFormat, virtualSize }: NewOverlay,
  signal?: AbortSignal,
): Promise<void> {
  // -u: do not open the backing file.
  const args = ['create', '-q', '-f', 'qcow2', '-u', '-b', base, '-F', baseFormat, file, String(virtualSize)];
  await qemuImg(args, signal);
}

export interface NewImage {
  readonly file: string;
  readonly virtualSize: number;
  /** How its clusters are compressed if they are. */
  readonly compression: 'zlib' | 'zstd';
  /** Its tables are written late, and it is marked as dirty until all of them are. */
  readonly tellsOfLostTables?: boolean;
  /** The image below it, as its header is to name it; it is not opened. */
  readonly backing?: { readonly name: string; readonly format: string } | undefined;
}

/** Makes an empty qcow2. Overwrites `file`. Throws a CutError. */
export async function makeImage({
  file,
  virtualSize,
  compression,
  tellsOfLostTables = false,
  backing,
}: NewImage): Promise<void> {
  const over = backing === undefined ? [] : ['-u', '-b', backing.name, '-F', backing.format];
  await qemuImg([
    'create',
    '-q',
    '-f',
    'qcow2',
    '-o',
    `compression_type=${compression},lazy_refcounts=${tellsOfLostTables ? 'on' : 'off'}`,
    ...over,
    file,
    String(virtualSize),
  ]);
}

export interface Holder {
  readonly pid?: number;
  /** Name of the process, or what tells of it. */
  readonly who: string;
  /** True if the holder may write to the file. */
  readonly writes: boolean;
}

/** For people. */
export function describeHolders(holders: readonly Holder[]): string {
  return holders.map(({ who, pid }) => (pid === undefined ? who : `${who} (process ${pid})`)).join(', ');
}

/**
 * Who has the file open: processes that /proc shows us (all of them, for root), and image locks of any process. Empty
 * if nobody, or if the file is not there.
 */
export async function holdersOf(file: string): Promise<Holder[]> {
  return (await holdersOfEach([file]))[0] ?? [];
}

/** `holdersOf` of several files, in their order, with one look through /proc. */
export async function holdersOfEach(files: readonly string[]): Promise<Holder[][]> {
  const targets = await Promise.all(files.map(async (file) => ({ file: await statOf(file), holders: [] as Holder[] })));
  const wanted = new Map<string, Holder[]>();
  for (const { file, holders } of targets) if (file !== undefined) wanted.set(identityIn(file), holders);
  const pids = wanted.size === 0 ? [] : (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    if (Number(pid) === process.pid) continue;
    for (const [identity, writes] of await openFiles(pid, wanted)) {
      const who = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
      wanted.get(identity)?.push({ pid: Number(pid), who, writes });
    }
  }
  return await Promise.all(
    targets.map(async ({ file }) => {
      const holders = file === undefined ? [] : (wanted.get(identityIn(file)) ?? []);
      if (file === undefined || holders.length > 0 || !(await isLocked(file.ino))) return holders;
      return [{ who: 'a process that locked the image', writes: false }];
    }),
  );
}

async function statOf(file: string): Promise<BigIntStats | undefined> {
  try {
    return await stat(file, { bigint: true });
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** The wanted files that the process has open, by what they are; true for one that is open for writing. */
async function openFiles(pid: string, wanted: ReadonlyMap<string, unknown>): Promise<Map<string, boolean>> {
  const found = new Map<string, boolean>();
  // A process that is gone meanwhile has no files; of one that is not ours to look at, its lock tells.
  const fds = await readdir(`/proc/${pid}/fd`).catch(() => []);
  const look = async (fd: string): Promise<void> => {
    const identity = identityIn(await stat(`/proc/${pid}/fd/${fd}`, { bigint: true }));
    if (!wanted.has(identity)) return;
    const writes = await isForWriting(`/proc/${pid}/fdinfo/${fd}`);
    found.set(identity, writes || found.get(identity) === true);
  };
  // A file that was closed meanwhile is passed over.
  await Promise.all(fds.map((fd) => look(fd).catch(() => undefined)));
  return found;
}

/** `flags:  0100002`, in octal, as open(2) has them. */
async function isForWriting(fdinfo: string): Promise<boolean> {
  const flags = /^flags:\s+([0-7]+)$/m.exec(await readFile(fdinfo, 'utf8'))?.[1];
  return flags !== undefined && (Number.parseInt(flags, 8) & 0b11) !== 0;
}

// Open-file-description locks have no owner in /proc/locks but an inode, as in `1: OFDLCK ADVISORY READ -1
// fe:00:2187974`.
// Compared by inode alone: on btrfs the device there is not the one of stat(2), and to err means to refuse.
async function isLocked(inode: bigint): Promise<boolean> {
  const locks = await readFile('/proc/locks', 'utf8').catch(() => '');
  return locks.split('\n').some((line) => line.includes('OFDLCK') && line.includes(`:${inode} `));
}
