// guest-file-*: files by handle. As qemu-ga, a file is opened without waiting (FIFOs, terminals); unlike it, nothing is
// buffered: what was written is in the file. Positions are kept here, since Node cannot seek. At most `openLimit` files
// are open, one operation waits at most `operationLimitMs` for the kernel, and all are closed when the agent ends.
import { constants, mkdirSync, readFileSync, writeFileSync, type Stats } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { withLimit } from '../../deadline.js';
import { BridgeError } from '../../errors.js';
import { refuse } from '../../qga/server.js';
import type { ChannelContext } from '../session-keeper.js';
import { decodeBase64 } from '../base64.js';
import { errnoName, errnoText } from '../errno-text.js';
import type { Sources } from '../sources.js';
import { readValue } from './block-devices.js';
import type { Handlers } from './handlers.js';

const openLimit = 32;
const readDefault = 4096;
/** QGA_READ_COUNT_MAX. */
const readLimit = 48 * 1024 * 1024;
const pieceBytes = 1024 * 1024;
/** A dead network filesystem may never answer. Node has few threads for files: two may be lost to one. */
const operationLimitMs = 30_000;
const lostLimit = 2;
const firstHandle = 1000;
const newFileMode = 0o666;
const INT64_MAX = 2n ** 63n - 1n;

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_EXCL, O_NOCTTY, O_NONBLOCK } = constants;
/** fopen(3)'s, with and without `b` in its two places. */
const modes: Readonly<Record<string, number>> = {
  r: O_RDONLY,
  w: O_WRONLY | O_CREAT | O_TRUNC,
  a: O_WRONLY | O_CREAT | O_APPEND,
  'r+': O_RDWR,
  'w+': O_RDWR | O_CREAT | O_TRUNC,
  'a+': O_RDWR | O_CREAT | O_APPEND,
};

interface OpenFile {
  readonly file: FileHandle;
  readonly append: boolean;
  /** Undefined: the kernel keeps it, or there is none (pipes, terminals). */
  position: bigint | undefined;
}

interface FileOptions extends Sources {
  /** Whether the policy lets this channel write. */
  readonly mayWrite: (context: ChannelContext) => boolean;
}

type FileHandlers = Pick<
  Handlers,
  | 'guest-file-open'
  | 'guest-file-close'
  | 'guest-file-read'
  | 'guest-file-write'
  | 'guest-file-seek'
  | 'guest-file-flush'
>;

export function fileHandlers(options: FileOptions): { readonly handlers: FileHandlers; close(): Promise<void> } {
  const files = new Map<bigint, OpenFile>();
  const numbers = handleNumbers(options.runtimeDir);
  const limited = kernelLimit();
  const find = (handle: number | bigint): OpenFile =>
    files.get(BigInt(handle)) ?? refuse(`handle '${handle}' has not been found`);

  const handlers: FileHandlers = {
    async 'guest-file-open'({ path, mode }, context) {
      const flags = modeFlags(mode);
      if (flags === undefined) return refuse(`invalid file open mode '${mode}'`);
      if (flags !== O_RDONLY && !options.mayWrite(context)) {
        refuse(`failed to open file '${path}' (mode: '${mode}'): the policy allows reading only`);
      }
      if (files.size >= openLimit) refuse(`${openLimit} files are open, which is the limit: close one`);
      const opening = openFile(path, flags);
      const file = await limited(`open '${path}'`, opening, (error) =>
        refuse(`failed to open file '${path}' (mode: '${mode}'): ${errnoText(error)}`),
      ).catch((error: unknown) => {
        // It may yet come, after nobody waits for it.
        opening.then((late) => late.file.close()).catch(() => undefined);
        throw error;
      });
      const handle = numbers();
      files.set(handle, file);
      return handle;
    },
    async 'guest-file-close'({ handle }) {
      const { file } = find(handle);
      files.delete(BigInt(handle));
      await limited('close', file.close(), (error) => refuse(`failed to close handle: ${errnoText(error)}`));
      return {};
    },
    async 'guest-file-read'({ handle, count: wanted = readDefault }) {
      const open = find(handle);
      if (wanted < 0 || wanted > readLimit) refuse(`value '${wanted}' is invalid for argument count`);
      const { bytes, eof } = await limited('read', readFrom(open, Number(wanted)), (error) =>
        refuse(`failed to read file: ${errnoText(error)}`),
      );
      return { count: bytes.length, 'buf-b64': bytes.toString('base64'), eof };
    },
    async 'guest-file-write'({ handle, 'buf-b64': text, count: wanted }) {
      const open = find(handle);
      const bytes = decodeBase64(text);
      const count = wanted ?? bytes.length;
      if (count < 0 || count > bytes.length) refuse(`value '${count}' is invalid for argument count`);
      const written = await limited('write', writeTo(open, bytes.subarray(0, Number(count))), (error) =>
        refuse(`failed to write to file: ${errnoText(error)}`),
      );
      return { count: written, eof: false };
    },
    async 'guest-file-seek'({ handle, offset, whence }) {
      const open = find(handle);
      const from = whenceName(whence);
      const failed = (error: unknown): never => refuse(`failed to seek file: ${errnoText(error)}`);
      const base = await limited('seek', baseOf(open, from, options.sysRoot), failed);
      const position = base + BigInt(offset);
      if (position < 0n || position > INT64_MAX) refuse('failed to seek file: Invalid argument');
      open.position = position;
      return { position, eof: false };
    },
    // Nothing is held back here; what the kernel holds is its own (qemu-ga does not sync either).
    'guest-file-flush'({ handle }) {
      find(handle);
      return {};
    },
  };
  return {
    handlers,
    async close() {
      const all = [...files.values()];
      files.clear();
      await Promise.all(all.map(({ file }) => file.close()));
    },
  };
}

function modeFlags(mode: string): number | undefined {
  const [, base] = /^([rwa])(?:b?\+?|\+b)$/.exec(mode) ?? [];
  return base === undefined ? undefined : modes[mode.includes('+') ? `${base}+` : base];
}

/** As in QEMU, is made exclusively, so that its mode is not the umask's. */
async function openFile(path: string, flags: number): Promise<OpenFile> {
  const always = flags | O_NOCTTY | O_NONBLOCK;
  const append = (flags & O_APPEND) !== 0;
  if ((flags & O_CREAT) !== 0) {
    try {
      const file = await open(path, always | O_EXCL, 0);
      await file.chmod(newFileMode);
      return { file, append, position: 0n };
    } catch (error) {
      if (errnoName(error) !== 'EEXIST') throw error;
    }
  }
  const file = await open(path, always & ~O_CREAT);
  const stat = await file.stat();
  const seekable = stat.isFile() || stat.isBlockDevice() || stat.isDirectory() || isMemoryDevice(stat);
  return { file, append, position: seekable ? 0n : undefined };
}

/** /dev/null, zero, mem and their like (major 1), which have a position; terminals and most others have none. */
function isMemoryDevice(stat: Stats): boolean {
  return stat.isCharacterDevice() && stat.rdev >>> 8 === 1;
}

async function readFrom(open: OpenFile, wanted: number): Promise<{ bytes: Buffer; eof: boolean }> {
  const pieces: Buffer[] = [];
  let got = 0;
  while (got < wanted) {
    const piece = Buffer.allocUnsafe(Math.min(pieceBytes, wanted - got));
    let bytesRead: number;
    try {
      ({ bytesRead } = await open.file.read(piece, 0, piece.length, position(open)));
    } catch (error) {
      // What a pipe has given so far is not lost because there is no more for now.
      if (got > 0 && errnoName(error) === 'EAGAIN') return { bytes: Buffer.concat(pieces), eof: false };
      throw error;
    }
    if (bytesRead === 0) return { bytes: Buffer.concat(pieces), eof: true };
    pieces.push(piece.subarray(0, bytesRead));
    got += bytesRead;
    if (open.position !== undefined) open.position += BigInt(bytesRead);
  }
  return { bytes: Buffer.concat(pieces), eof: false };
}

async function writeTo(open: OpenFile, bytes: Buffer): Promise<number> {
  let written = 0;
  while (written < bytes.length) {
    const at = open.append ? null : position(open);
    const { bytesWritten } = await open.file.write(bytes, written, bytes.length - written, at);
    written += bytesWritten;
    if (open.position !== undefined) open.position += BigInt(bytesWritten);
  }
  if (open.append && open.position !== undefined) open.position = BigInt((await open.file.stat()).size);
  return written;
}

/** Beyond 2^53 no file reaches: the kernel's own limit is below that for every filesystem there is but XFS. */
function position({ position: at }: OpenFile): number | null {
  if (at === undefined) return null;
  if (at > BigInt(Number.MAX_SAFE_INTEGER)) throw Object.assign(new Error('EFBIG'), { code: 'EFBIG' });
  return Number(at);
}

type Whence = 'set' | 'cur' | 'end';

function whenceName(whence: number | bigint | Whence): Whence {
  if (typeof whence === 'string') return whence;
  const names: readonly Whence[] = ['set', 'cur', 'end'];
  return names[Number(whence)] ?? refuse(`invalid whence code ${whence}`);
}

async function baseOf({ file, position: at }: OpenFile, whence: Whence, sysRoot: string): Promise<bigint> {
  if (at === undefined) throw Object.assign(new Error('ESPIPE'), { code: 'ESPIPE' });
  if (whence === 'set') return 0n;
  if (whence === 'cur') return at;
  const stat = await file.stat({ bigint: true });
  if (!stat.isBlockDevice()) return stat.size;
  // makedev(3) of Linux.
  const major = ((stat.rdev >> 8n) & 0xfffn) | ((stat.rdev >> 32n) & ~0xfffn);
  const minor = (stat.rdev & 0xffn) | ((stat.rdev >> 12n) & ~0xffn);
  return BigInt(readValue(join(sysRoot, `dev/block/${major}:${minor}/size`)) ?? '0') * 512n;
}

/** Runs an operation with a time limit; refuses while too many are lost in the kernel. */
function kernelLimit(): <T>(what: string, work: Promise<T>, failed: (error: unknown) => never) => Promise<T> {
  let lost = 0;
  return async (what, work, failed) => {
    if (lost >= lostLimit) {
      work.catch(() => undefined);
      refuse(`${lost} file operations still wait for the kernel: no further one is begun`);
    }
    try {
      return await withLimit(what, operationLimitMs, work, 'unknown');
    } catch (error) {
      if (!(error instanceof BridgeError)) return failed(error);
      lost++;
      const found = (): void => {
        lost--;
      };
      work.then(found, found);
      throw error;
    }
  };
}

/**
 * Never the same number twice until the guest is started anew, so that the handle of an agent that died is not taken
 * for another file (qemu-ga keeps its count in qga.state for that).
 */
function handleNumbers(runtimeDir: string): () => bigint {
  const path = join(runtimeDir, 'file-handles');
  let next: bigint | undefined;
  return () => {
    next ??= BigInt(/^\d{1,18}$/.exec(readIfThere(path))?.[0] ?? firstHandle);
    const handle = next++;
    mkdirSync(runtimeDir, { recursive: true, mode: 0o755 });
    writeFileSync(path, String(next));
    return handle;
  };
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoName(error) === 'ENOENT') return '';
    throw error;
  }
}
