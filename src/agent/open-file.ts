// Opens a file of guest-file-*, reads, writes and seeks in it. Modes are named as in fopen(3), but opening never waits.
// The position is kept here, since Node cannot seek. All of these throw the system's errors; handlers/files.ts answers
// them.
import { constants, type Stats } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '../errors.js';
import { readValue } from '../linux/kernel-values.js';

const PIECE_BYTES = 1024 * 1024;
const NEW_FILE_MODE = 0o666;

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_EXCL, O_NOCTTY, O_NONBLOCK } = constants;
/** Modes of fopen(3), without the `b` that may stand in two places and means nothing. */
const modes: Readonly<Record<string, number>> = {
  r: O_RDONLY,
  w: O_WRONLY | O_CREAT | O_TRUNC,
  a: O_WRONLY | O_CREAT | O_APPEND,
  'r+': O_RDWR,
  'w+': O_RDWR | O_CREAT | O_TRUNC,
  'a+': O_RDWR | O_CREAT | O_APPEND,
};

export interface OpenFile {
  readonly file: FileHandle;
  readonly append: boolean;
  /** Undefined where there is none: pipes, terminals. */
  position: bigint | undefined;
}

export type Whence = 'set' | 'cur' | 'end';

/** Flags of open(2) for a mode; undefined if there is no such mode. */
export function modeFlags(mode: string): number | undefined {
  const [, base] = /^([rwa])(?:b?\+?|\+b)$/.exec(mode) ?? [];
  return base === undefined ? undefined : modes[mode.includes('+') ? `${base}+` : base];
}

export function readsOnly(flags: number): boolean {
  return flags === O_RDONLY;
}

/** As in QEMU, a new file is made exclusively, so that its mode is not the umask's. Throws what open(2) does. */
export async function openFile(path: string, flags: number): Promise<OpenFile> {
  const always = flags | O_NOCTTY | O_NONBLOCK;
  const append = (flags & O_APPEND) !== 0;
  if ((flags & O_CREAT) !== 0) {
    try {
      const file = await open(path, always | O_EXCL, 0);
      await file.chmod(NEW_FILE_MODE);
      return { file, append, position: 0n };
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
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

export async function readFrom(open: OpenFile, wanted: number): Promise<{ bytes: Buffer; eof: boolean }> {
  const pieces: Buffer[] = [];
  let got = 0;
  while (got < wanted) {
    const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, wanted - got));
    let bytesRead: number;
    try {
      ({ bytesRead } = await open.file.read(piece, 0, piece.length, position(open)));
    } catch (error) {
      // The bytes that a pipe has given so far are not lost because there are no more for now.
      if (got > 0 && isErrno(error, 'EAGAIN')) return { bytes: Buffer.concat(pieces), eof: false };
      throw error;
    }
    if (bytesRead === 0) return { bytes: Buffer.concat(pieces), eof: true };
    pieces.push(piece.subarray(0, bytesRead));
    got += bytesRead;
    if (open.position !== undefined) open.position += BigInt(bytesRead);
  }
  return { bytes: Buffer.concat(pieces), eof: false };
}

export async function writeTo(open: OpenFile, bytes: Buffer): Promise<number> {
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

/** No file reaches beyond 2^53: the kernel's own limit is lower for every filesystem but XFS. */
function position({ position: at }: OpenFile): number | null {
  if (at === undefined) return null;
  if (at > BigInt(Number.MAX_SAFE_INTEGER)) throw Object.assign(new Error('EFBIG'), { code: 'EFBIG' });
  return Number(at);
}

export async function baseOf({ file, position: at }: OpenFile, whence: Whence, sysRoot: string): Promise<bigint> {
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
